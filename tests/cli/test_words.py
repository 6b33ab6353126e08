"""The grammar of words: order-free, the last one wins."""

from __future__ import annotations

from pathlib import Path

import pytest

from coterie.cli.words import one_target, read_words
from coterie.foundation.errors import SettingsError, UserError
from coterie.foundation.layers import load_settings
from coterie.foundation.settings import Settings


class _Part(Settings):
    b: int = 0
    c: int = 0


class _Whole(Settings):
    a: _Part = _Part()


def test_words_are_sorted_by_form_in_any_order():
    words = read_words(("a.b=1", "quickstart", "@over.yaml", "c=x=y", "./p=q.txt", "@"))
    assert words.targets == ("quickstart", "./p=q.txt", "@")
    assert words.overrides == ("a.b=1", "c=x=y")
    assert words.overlays == (Path("over.yaml"),)


def test_layers_end_with_the_command_line(tmp_path):
    (tmp_path / "over.yaml").write_text("a: {b: 1, c: 2}\n")
    layers = read_words(("a.b=3", "@over.yaml")).layers()
    assert load_settings(_Whole, layers).settings.a == _Part(b=3, c=2)


def test_a_missing_overlay_is_refused():
    with pytest.raises(SettingsError, match="no settings file"):
        read_words(("@none.yaml",)).layers()


def test_one_word_can_be_taken_out():
    words, scale = read_words(("scale=small", "a=1", "scale=tiny")).take("scale")
    assert scale == "tiny"
    assert words.overrides == ("a=1",)
    assert words.take("scale")[1] is None


def test_targets_are_counted():
    assert one_target(read_words(()), "run", "usage", default="latest") == "latest"
    with pytest.raises(UserError, match="Which run"):
        one_target(read_words(()), "run", "usage")
    with pytest.raises(UserError, match="got 2: a b"):
        one_target(read_words(("a", "b")), "run", "usage")
