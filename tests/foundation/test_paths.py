"""`~` is the home directory; without one, that is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from coterie.data.settings import DataSettings
from coterie.foundation.errors import SettingsError, UserError
from coterie.foundation.layers import file_layer, load_settings, overrides_layer
from coterie.foundation.paths import expand_home
from coterie.foundation.runs import cache_root, runs_root
from coterie.presets import preset_layers
from coterie.tokenizer.settings import TokenizerFile


def test_home_is_put_for_a_tilde(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    words = ["source=~/a b.txt", "store=~/store"]
    data = load_settings(DataSettings, [overrides_layer(words)]).settings
    assert data.inputs == (f"{tmp_path}/a b.txt",)
    assert data.store == tmp_path / "store"
    assert DataSettings(source=("~/a", "b~/c")).source == (f"{tmp_path}/a", "b~/c")
    assert TokenizerFile(path=Path("~/t.json")).path == tmp_path / "t.json"
    assert expand_home("~nobody-of-this-name/x") == "~nobody-of-this-name/x"
    for name, root in (("COTERIE_RUNS", runs_root), ("COTERIE_CACHE", cache_root)):
        monkeypatch.setenv(name, "~/place")
        assert root() == tmp_path / "place"
    (tmp_path / "over.yaml").write_text("seed: 3\n")
    assert list(file_layer("~/over.yaml").values) == ["seed"]
    assert list(preset_layers("~/over.yaml")[0].values) == ["seed"]


def test_no_home_is_a_user_error_that_names_the_key(monkeypatch):
    monkeypatch.setenv("HOME", "")
    for name in ("COTERIE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="no home directory"):
        cache_root()
    with pytest.raises(SettingsError, match="source: there is no home directory"):
        load_settings(DataSettings, [overrides_layer(["source=~/x"])])


@pytest.mark.parametrize("path", ["", "a\x00b"])
def test_what_no_path_can_be_is_refused(path):
    for word in (f"source={path}", f"store={path}"):
        with pytest.raises(SettingsError, match=f"{word.partition('=')[0]}: a path cannot"):
            load_settings(DataSettings, [overrides_layer([word])])
