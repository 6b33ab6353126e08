"""Blocks compiled one by one: one program for all that are alike.

On a GPU the whole decoder takes minutes to compile (104 s for 12 layers, 38 s for a dense twin,
where the blocks took 68 and 7), for every layer is part of one program. Blocks that differ in
their tensors alone share code; embedding, head and loss stay as they are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from coterie.model import Decoder

_PROGRAMS_PER_BLOCK = 4  # another rate of dropped paths, another type of products


class CompiledBlocks:
    """The compiled form of a decoder's blocks, in use while a step's gradients are computed.

    Evaluation and sampling, whose shapes are others, go on with the blocks as they are. With
    activation checkpointing it has to hold in the backward pass too, which computes them again.
    """

    def __init__(self, decoder: Decoder, mode: str = "default") -> None:
        self._blocks = [*decoder.blocks, *decoder.mtp]
        self._compiled = [torch.compile(block._call_impl, mode=mode) for block in self._blocks]
        config = torch._dynamo.config
        limit = _PROGRAMS_PER_BLOCK * len(self._blocks)
        config.recompile_limit = max(config.recompile_limit, limit)

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Let calls of the blocks run their compiled form."""
        try:
            for block, compiled in zip(self._blocks, self._compiled, strict=True):
                block._compiled_call_impl = compiled
            yield
        finally:
            for block in self._blocks:
                block._compiled_call_impl = None
