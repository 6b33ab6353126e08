"""Objectives: a closed union of settings, each of which builds what a step minimises.

One objective is one file. `interface` says what it must do; `routers` holds the terms that any
objective of a routed model adds.
"""

from __future__ import annotations

from typing import Annotated

from coterie.foundation.settings import union
from coterie.train.objective.interface import Models, Objective, Term, Terms
from coterie.train.objective.language_model import LanguageModel

ObjectiveSettings = Annotated[LanguageModel, union(LanguageModel)]

__all__ = ["LanguageModel", "Models", "Objective", "ObjectiveSettings", "Term", "Terms"]
