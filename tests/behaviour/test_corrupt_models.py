"""Random damage to models from elsewhere: imported or refused in words; see the scripts."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
pytest.importorskip("gguf", reason="the test extra brings it")


def script(name: str):
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPTS)
        patch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["corrupt_gguf", "corrupt_folders"])
def test_damage_is_imported_or_refused_in_words(name, tmp_path):
    """The seed follows from the run's; a failure prints it."""
    attacks = script(name)
    make = getattr(attacks, "sound_files", None) or attacks.sound_folders
    (tmp_path / "sound").mkdir()
    sound = make(tmp_path / "sound")
    seed = random.randrange(1 << 32)
    chance, verdicts = random.Random(seed), []
    for _ in range(25):
        verdict, what = attacks.attack(chance, sound, tmp_path / "attacked")
        assert verdict in ("imported", "refused"), f"seed {seed}: {what}\n{verdict}"
        verdicts.append(verdict)
    assert "refused" in verdicts
