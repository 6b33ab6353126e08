"""Random states: kept in checkpoints, and set aside while anything but training runs.

Training draws from the global generators (dropout); evaluating, sampling, saving and observing draw
from whatever they like inside `set_aside`, which puts the generators back as they were. So none of
them can change what training does.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from coterie.checkpoint.state import decode_state, encode_state


def seed_all(seed: int) -> None:
    """Seed the generators of Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """Return the state of every generator as JSON values."""
    version, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "python": [version, list(numbers), gauss],
        "numpy": [name, np.asarray(keys).tolist(), position, has_gauss, cached],
        "torch": encode_state(torch.get_rng_state()),
    }
    if torch.cuda.is_available():
        state["cuda"] = [encode_state(s) for s in torch.cuda.get_rng_state_all()]
    return state


def set_random_state(state: Mapping[str, Any]) -> None:
    """Put every generator back; the states of devices that are not there are left out."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(decode_state(state["torch"]))
    if torch.cuda.is_available():
        for device, encoded in enumerate(state.get("cuda", [])[: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(decode_state(encoded), device)


def torch_states() -> list[torch.Tensor]:
    """Return where torch's generators stand, the CPU's first; cheap enough for every step."""
    used = torch.cuda.is_available() and torch.cuda.is_initialized()
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if used else ())]


def set_torch_states(states: list[torch.Tensor]) -> None:
    """Put torch's generators back where they stood."""
    torch.set_rng_state(states[0])
    if states[1:]:
        torch.cuda.set_rng_state_all(states[1:])


@contextlib.contextmanager
def set_aside() -> Iterator[None]:
    """Let the block draw random numbers without training taking notice."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
