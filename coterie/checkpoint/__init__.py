"""Checkpoints: atomic, complete, hashed, never pickled.

`write` makes one, `retain` keeps the directory small, `check` says what is wrong with one, `read`
finds the newest sound one, `model` turns any target into a trained model. Names are imported when
first used, so that `hashing` can begin before torch is there.
"""

from typing import TYPE_CHECKING

from coterie.foundation.lazy import lazy_names

if TYPE_CHECKING:
    from coterie.checkpoint.check import find_problem, read_settings
    from coterie.checkpoint.distributed import read_into, write_parts
    from coterie.checkpoint.layout import is_checkpoint, list_checkpoints, step_of
    from coterie.checkpoint.model import LoadedModel, load_model, locate_checkpoint
    from coterie.checkpoint.read import Checkpoint, find_checkpoint, load_checkpoint
    from coterie.checkpoint.state import State, read_state
    from coterie.checkpoint.tensors import load_tensors
    from coterie.checkpoint.write import checkpoint_bytes, save_checkpoint


__getattr__ = lazy_names(
    __name__,
    {
        "Checkpoint": "read",
        "LoadedModel": "model",
        "State": "state",
        "checkpoint_bytes": "write",
        "find_checkpoint": "read",
        "find_problem": "check",
        "is_checkpoint": "layout",
        "list_checkpoints": "layout",
        "load_checkpoint": "read",
        "load_model": "model",
        "load_tensors": "tensors",
        "locate_checkpoint": "model",
        "read_settings": "check",
        "read_into": "distributed",
        "read_state": "state",
        "save_checkpoint": "write",
        "step_of": "layout",
        "write_parts": "distributed",
    },
)
