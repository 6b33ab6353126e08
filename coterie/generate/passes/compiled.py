"""Decode steps of static shape, compiled block by block with `torch.compile`.

Each layer's whole memory is read, with a mask from the positions, so that no shape grows with the
text; one compiled block serves all layers of its kind (regional compilation), and a new program is
made only where the room of the cache doubles or the batch changes. Inductor keeps what it compiled
on disk, so a later process compiles in seconds.

Experts are gathered by their indices inside the graph, where few pairs are computed at once; the
other kernels, and attention backends that plan by values, stay outside it.
"""

import importlib
import time
import weakref
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from coterie.foundation.errors import UserError
from coterie.generate.passes.interface import Call
from coterie.generate.passes.static import Slots, StaticPast, memory, refusal
from coterie.generate.threads import shared_cores
from coterie.model import Decoder
from coterie.model.context import ForwardContext
from coterie.model.geometry import UnevenRows
from coterie.model.position import Rotation

_PROGRAMS = 64  # of one function: kinds of layers × rooms × batches
_BATCHES = 4


class CompiledPass:
    """Decodes one token of every row; other calls are left to the next pass.

    Args:
        notify: told in a sentence how long compiling took.
        backend: of `torch.compile`.
    """

    def __init__(
        self,
        decoder: Decoder,
        notify: Callable[[str], None] | None = None,
        backend: str = "inductor",
    ) -> None:
        self._decoder = weakref.ref(decoder)  # who keeps a pass need not keep the model
        self._notify = notify or (lambda sentence: None)
        self._blocks = CompiledBlocks(decoder, backend)
        self._batches: set[int] = set()

    def refuses(self, call: Call) -> str | None:
        reason, batch = refusal(call), call.tokens.shape[0]
        if reason is None and batch not in self._batches and len(self._batches) == _BATCHES:
            return f"{_BATCHES} sizes of batches are compiled already"
        return reason

    def read(self, call: Call) -> Float[Tensor, "B n V"]:
        """Return the logits of the last position; the tokens become part of the past.

        Raises:
            UserError: the compiler is not there, or fails.
        """
        decoder, cache, tokens = self._decoder(), call.cache, call.tokens
        assert decoder is not None
        assert cache is not None
        begin, new = time.perf_counter(), tokens.shape[0] not in self._batches
        past, lookback = cache.lengths, decoder.lookback
        at = torch.tensor(past, device=tokens.device)[:, None]
        rows = UnevenRows(past, (1,) * len(past), at)
        recent = cache.recent_tokens(lookback) if lookback else None
        static = StaticPast(memory(cache, 1), rows, recent)
        context = ForwardContext(cache=static, router_stats=False, run_block=self._blocks)
        logits = decoder(tokens, context=context, last=1).logits
        assert logits is not None, "without targets the decoder returns logits"
        cache.advance(tokens)
        if new:
            self._batches.add(tokens.shape[0])
            self._notify(f"Compiled the decode step in {time.perf_counter() - begin:.0f} s.")
        return logits


class CompiledBlocks:
    """Computes blocks over a `StaticPast` by compiled programs, one for all blocks of a kind."""

    def __init__(self, decoder: Decoder, backend: str = "inductor") -> None:
        settings = decoder.settings
        self._backend = backend
        self._channels = {plan.attention.channels(settings.width) for plan in settings.plans()}
        self._compiled: Callable[..., Tensor] | None = None

    def __call__(self, block: nn.Module, hidden: Tensor, context: ForwardContext) -> Tensor:
        """Compute one block.

        Raises:
            UserError: the compiler is not there, or fails.
        """
        rows, slots, rotation = context.rows, context.kv_cache, context.rotation
        assert rows is not None
        assert isinstance(slots, Slots)
        if rotation is not None:  # its angles are looked up before it enters the graph
            for channels in self._channels:
                rotation(hidden.new_zeros(1, 1, 1, channels))
        if self._compiled is None:
            shared_cores().hold()  # torch compiles anew for each number of threads
            # One-row products become sums, which read their weights as fast as memory gives them,
            # and an expert's where they lie.
            tuned = hidden.is_cuda and self._backend == "inductor"
            options: Any = {"coordinate_descent_tuning": True} if tuned else None
            made: Any = torch.compile(_step, dynamic=False, backend=self._backend, options=options)
            self._compiled = made
        step = self._compiled
        assert step is not None
        try:
            with _compiler().config.patch(recompile_limit=_PROGRAMS):
                return step(block, hidden, rows.positions, rotation, slots.keys, slots.values)
        except _compiler().exc.BackendCompilerFailed as error:
            raise UserError(
                f"The decode step could not be compiled: {str(error).splitlines()[0]}",
                hint="On a CPU this needs a C++ compiler (g++); without one take compute=auto.",
            ) from error


def _compiler() -> Any:
    """Return torch's compiler, which takes two seconds to load."""
    return importlib.import_module("torch._dynamo")


def _step(
    block: nn.Module,
    hidden: Float[Tensor, "B 1 D"],
    positions: Int[Tensor, "B 1"],
    rotation: Rotation | None,
    keys: Float[Tensor, "B K R C"],
    values: Float[Tensor, "B J R E"],
) -> Float[Tensor, "B 1 D"]:
    """Compute one block; what is compiled."""
    ones = (1,) * hidden.shape[0]
    rows = UnevenRows(ones, ones, positions)  # of the numbers only how many there are matters
    slots = Slots(keys, values)
    context = ForwardContext(rows=rows, rotation=rotation, kv_cache=slots, router_stats=False)
    return block(hidden, context)[0]
