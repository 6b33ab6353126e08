"""Coterie: from raw text to a trained, measured and served sparse mixture of experts.

    model = coterie.load("demo")
    print(model.generate("ROMEO:", max_tokens=40, temperature=0))
    run = coterie.train("quickstart", {"train.steps": 200})

Importing the package imports nothing else: each name below is fetched when it is used. Those who
build on the parts import the room they need (`coterie.model`, `coterie.data`, ...); the README
holds the map.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

TYPE_CHECKING = False  # editors take it for true; importing `typing` would cost more than the rest
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from coterie.api.data import blend, clean, dedup, merge, prepare
    from coterie.api.model import Model, load
    from coterie.api.parts import join, prepare_part
    from coterie.api.planning import plan
    from coterie.api.runs import Run, runs
    from coterie.api.training import resume, train
    from coterie.api.tuning import tune

__version__ = "0.1.0"

_NAMES = {
    "Model": "coterie.api.model",
    "Run": "coterie.api.runs",
    "blend": "coterie.api.data",
    "clean": "coterie.api.data",
    "dedup": "coterie.api.data",
    "join": "coterie.api.parts",
    "load": "coterie.api.model",
    "merge": "coterie.api.data",
    "plan": "coterie.api.planning",
    "prepare": "coterie.api.data",
    "prepare_part": "coterie.api.parts",
    "resume": "coterie.api.training",
    "runs": "coterie.api.runs",
    "tune": "coterie.api.tuning",
}

__all__ = [
    "Model",
    "Run",
    "blend",
    "clean",
    "dedup",
    "join",
    "load",
    "merge",
    "plan",
    "prepare",
    "prepare_part",
    "resume",
    "runs",
    "train",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name == "train":
        return importlib.import_module("coterie.train")
    if name not in _NAMES:
        raise AttributeError(f"module 'coterie' has no attribute {name!r}")
    return getattr(importlib.import_module(_NAMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


class _TrainRoom(ModuleType):
    """The room `coterie.train`, which trains when it is called."""

    def __call__(
        self, preset: str, settings: Mapping[str, Any] | None = None, *, name: str | None = None
    ) -> Run:
        """Train a model and return its run; see `coterie.api.training.train`."""
        training = importlib.import_module("coterie.api.training")
        return training.train(preset, settings, name=name)


class _Package(ModuleType):
    """This package: it makes its room `train` callable when that is imported, by whomever."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "train" and isinstance(value, ModuleType):
            value.__class__ = _TrainRoom
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
