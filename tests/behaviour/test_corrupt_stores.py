"""Random damage to stores: no traceback, no false alarm, nothing missed; see the script."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path

import pytest

from coterie.data import verify_store

SCRIPT = Path(__file__).parents[2] / "scripts" / "corrupt_stores.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("corrupt_stores", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPT.parent)
        patch.setitem(sys.modules, "corrupt_stores", module)
        spec.loader.exec_module(module)
        yield module


@pytest.fixture(scope="module")
def stores(script, tmp_path_factory):
    return script.sound_stores(tmp_path_factory.mktemp("stores"), script.SMALL)


def test_sound_stores_of_every_kind_are_sound(stores):
    for store in stores:
        assert verify_store(store) == [], store.name


@pytest.mark.parametrize("signed", [False, True])
def test_damage_is_found(script, stores, tmp_path, signed):
    rng = random.Random(11)
    found = 0
    for _ in range(40):
        seen = script.round_of(rng, stores, tmp_path / "place", signed=signed)
        if seen is not None:
            verdict, case = seen
            assert not verdict.split()[0].isupper(), f"{verdict}\n{case.what}"
            found += verdict == "found"
    assert found > 20
