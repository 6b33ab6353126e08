"""Masks as kernels read them."""

from functools import singledispatch

from coterie.generate.native.builder import Builder, LoweringError
from coterie.generate.native.kernels.mask import ALL, BLOCKS, DILATED, STRIDED, Pattern
from coterie.model.attention.mask import Mask
from coterie.model.attention.sparse import (
    BlockPattern,
    DilatedPattern,
    SparsePattern,
    StridedPattern,
)

_SINKS = 1  # runs before those of a pattern


def pattern_of(mask: Mask, builder: Builder) -> int:
    """Return where a mask stands.

    Raises:
        LoweringError: no kernel knows its pattern.
    """
    runs, kind, sizes = (1, ALL, ()) if mask.sparse is None else _runs(mask.sparse)
    size, local, first, chosen, seed = (*sizes, 0, 0, 0, 0, 0)[:5]
    return builder.words(
        Pattern(_SINKS + runs, kind, mask.window or 0, mask.sinks, size, local, first, chosen, seed)
    )


@singledispatch
def _runs(sparse: SparsePattern) -> tuple[int, int, tuple[int, ...]]:
    """Return how many runs of positions a pattern shows, its kind and its sizes."""
    raise LoweringError(f"no kernel for {type(sparse).__name__}")


@_runs.register
def _strided(sparse: StridedPattern) -> tuple[int, int, tuple[int, ...]]:
    return 2, STRIDED, (sparse.stride,)


@_runs.register
def _dilated(sparse: DilatedPattern) -> tuple[int, int, tuple[int, ...]]:
    return 1, DILATED, (sparse.stride,)


@_runs.register
def _blocks(sparse: BlockPattern) -> tuple[int, int, tuple[int, ...]]:
    sizes = (sparse.size, sparse.local, sparse.first, sparse.chosen, sparse.seed)
    return 2 + sparse.chosen, BLOCKS, sizes
