"""The front door: quick, lazy, and in nobody's way."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import coterie
from coterie.api import training


def test_importing_it_imports_nothing_heavy():
    code = """import sys, coterie
assert {"load", "train", "prepare", "runs", "Model"} <= set(dir(coterie))
sys.exit(str({"torch", "numpy", "pydantic", "rich", "coterie.api"} & set(sys.modules) or ""))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == ""


def test_the_room_train_is_a_room_and_trains():
    import coterie.train as room
    from coterie.train import TrainSettings

    assert coterie.train is room is sys.modules["coterie.train"]
    assert room.TrainSettings is TrainSettings
    assert room.train is room.loop.train
    assert list(inspect.signature(room).parameters) == ["preset", "settings", "name"]
    assert inspect.signature(room) == inspect.signature(training.train)


def test_every_name_leads_somewhere_documented():
    for name in coterie.__all__:
        assert callable(getattr(coterie, name))
        assert getattr(coterie, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = coterie.lode  # type: ignore[attr-defined]
