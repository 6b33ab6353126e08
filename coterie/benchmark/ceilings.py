"""What the machine can do at most: how fast it reads, copies and multiplies.

A decoded token must read every active weight once, so the rate of reading bounds decoding; the
products bound prefill and training. The best of several short attempts counts, for other work on
the machine can only make one slower.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

_BYTES = 512 << 20  # far beyond every cache
_TRIES = 5


@dataclass(frozen=True)
class Ceilings:
    """Rates measured in this run.

    Attributes:
        threads: that torch used.
        read: bytes read per second, the better of a sum and a matrix-vector product.
        matvec: bytes read per second by torch's matrix-vector product.
        copy: bytes read and written per second.
        products: FLOP/s of square products in float32.
        products_bfloat16: the same in bfloat16.
    """

    threads: int
    read: float
    matvec: float
    copy: float
    products: float
    products_bfloat16: float


def measure_ceilings() -> Ceilings:
    """Measure the machine; takes a few seconds and about 1 GB."""
    source = torch.ones(_BYTES // 4)
    target = torch.empty_like(source)
    matrix, vector = source.view(1 << 13, -1), torch.ones(source.numel() >> 13)
    matvec = _BYTES / best(lambda: matrix @ vector)
    return Ceilings(
        threads=torch.get_num_threads(),
        read=max(matvec, _BYTES / best(source.sum)),
        matvec=matvec,
        copy=2 * _BYTES / best(lambda: target.copy_(source)),
        products=_products(torch.float32),
        products_bfloat16=_products(torch.bfloat16),
    )


def best(way: Callable[[], object], tries: int = _TRIES) -> float:
    """Return the seconds of the fastest of several calls."""
    taken = []
    for _ in range(tries):
        begin = time.perf_counter()
        way()
        taken.append(time.perf_counter() - begin)
    return min(taken)


def _products(dtype: torch.dtype) -> float:
    """Return the rate of 2048³ products; of 512³ where the precision has no units of its own."""
    rate = 0.0
    for side in (512, 2048):
        a = torch.ones(side, side, dtype=dtype)
        rate = 2 * side**3 / best(lambda a=a: a @ a, tries=3)
        if rate < 5e9:
            break
    return rate
