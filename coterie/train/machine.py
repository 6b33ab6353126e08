"""The machine: what it is, and how many operations a second its matrix products really reach.

The rate is measured, not looked up: it is what MFU is a fraction of, and what time estimates are
made from. A measurement takes a fraction of a second. The best one of each machine is kept in the
cache folder, because other work going on at the same time can only make one worse.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from coterie.foundation.errors import UserError
from coterie.foundation.files import sha256_bytes, write_json_atomic
from coterie.foundation.records import read_model
from coterie.foundation.runs import cache_root
from coterie.train.precision import Precision

_LARGEST_SIDES = {"cpu": 2048, "cuda": 8192}
_LONG_ENOUGH = 0.02  # seconds
_SECONDS = 0.25


class _Measured(BaseModel):
    flops: float = Field(gt=0, allow_inf_nan=False, strict=True)


@contextlib.contextmanager
def computing_threads(count: int | None) -> Iterator[None]:
    """Compute with so many threads on the CPU inside the block; None: with as many as before."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count is not None:
            torch.set_num_threads(before)


def describe_machine(device: torch.device) -> dict[str, str | int | float]:
    """Return what a reader of figures must know about the machine."""
    machine: dict[str, str | int | float] = {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        machine["gpu"] = properties.name
        machine["gpu_memory_bytes"] = properties.total_memory
    return machine


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def peak_flops(precision: Precision, *, measure: bool = True) -> float | None:
    """Return the measured rate of square matrix products on a device, in FLOP/s.

    Args:
        precision: the device and the type to multiply in.
        measure: whether to measure now; otherwise the best so far is returned, None if there is
            none.
    """
    path = cache_root() / "machine" / f"{_fingerprint(precision)}.json"
    best = None
    with contextlib.suppress(OSError, UserError):  # missing or damaged: measured again
        best = read_model(_Measured, path).flops
    if not measure:
        return best
    flops = measure_matmul(precision)
    if best is not None and best >= flops:
        return best
    with contextlib.suppress(OSError, ValueError):  # a read-only cache costs a measurement a run
        write_json_atomic(
            path,
            {"flops": flops, "precision": precision.name, "measured": time.strftime("%F %T"),
             **describe_machine(precision.device)},
        )  # fmt: skip
    return flops


def _fingerprint(precision: Precision) -> str:
    """Return a name for this machine, device and precision."""
    about: dict[str, Any] = describe_machine(precision.device)
    about |= {"device": precision.device.type, "precision": precision.name}
    return sha256_bytes(json.dumps(about, sort_keys=True).encode())[:16]


def measure_matmul(precision: Precision, seconds: float = _SECONDS) -> float:
    """Return the best rate of n³ matrix products seen within a short time, in FLOP/s.

    A product of two n × n matrices is 2 n³ operations. The best of several is taken, because
    other work on the machine can only make it slower; n grows until a product takes long enough to
    be timed, so that a precision without units for it (a rate a hundred times lower) is found out
    quickly too.
    """
    device = precision.device
    limit = _LARGEST_SIDES.get(device.type, 2048)
    side, best = 256, 0.0
    end = time.perf_counter() + seconds
    while best == 0.0 or time.perf_counter() < end:
        a = torch.ones(side, side, device=device, dtype=precision.dtype)
        _time_product(a)  # the first one of a size sets things up
        took = _time_product(a)
        best = max(best, 2.0 * side**3 / took)
        if took < _LONG_ENOUGH and side < limit:
            side *= 2
    return best


def _time_product(a: Tensor) -> float:
    """Return how many seconds a @ a takes, the device's work included."""
    begin = time.perf_counter()
    torch.mm(a, a)
    if a.device.type == "cuda":
        torch.cuda.synchronize(a.device)
    elif a.device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter() - begin
