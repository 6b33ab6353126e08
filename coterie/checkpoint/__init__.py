"""Checkpoints: whole or not there, complete, hashed, never pickled.

`write` makes one and keeps the directory small, `read` finds the newest sound one and refuses what
does not belong, `model` turns any target into a trained model.
"""

from coterie.checkpoint.layout import is_checkpoint, list_checkpoints, step_of
from coterie.checkpoint.model import LoadedModel, load_model, locate_checkpoint
from coterie.checkpoint.read import (
    Checkpoint,
    find_checkpoint,
    find_problem,
    load_checkpoint,
    load_tensors,
    read_settings,
)
from coterie.checkpoint.write import checkpoint_bytes, save_checkpoint

__all__ = [
    "Checkpoint",
    "LoadedModel",
    "checkpoint_bytes",
    "find_checkpoint",
    "find_problem",
    "is_checkpoint",
    "list_checkpoints",
    "load_checkpoint",
    "load_model",
    "load_tensors",
    "locate_checkpoint",
    "read_settings",
    "save_checkpoint",
    "step_of",
]
