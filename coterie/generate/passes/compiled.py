"""Decode steps of static shape, compiled block by block with `torch.compile`.

Each layer's whole memory is read, with a mask from the positions, so that no shape grows with the
text; one compiled block serves all layers of its kind (regional compilation), and a new program is
made only where the room of the cache doubles or the batch changes. Inductor keeps what it compiled
on disk, so a later process compiles in seconds. On CUDA the blocks become CUDA graphs.

Experts are gathered by their indices inside the graph, where few pairs are computed at once; the
other kernels, and attention backends that plan by values, stay outside it.
"""

from __future__ import annotations

import importlib
import time
import weakref
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from coterie.foundation.errors import UserError
from coterie.generate.cache.stack import CacheStack
from coterie.generate.passes.interface import Call
from coterie.generate.threads import shared_cores
from coterie.model import Decoder
from coterie.model.context import ForwardContext
from coterie.model.geometry import KeyLayout, UnevenRows
from coterie.model.position import Rotation

_PROGRAMS = 64  # of one function: kinds of layers × rooms × batches
_BATCHES = 4


class CompiledPass:
    """Decodes one token of every row; other calls are left to the next pass.

    Args:
        decoder: the model.
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
        self._backend = backend
        self._on_cuda = next(decoder.parameters()).device.type == "cuda"
        self._compiled: Callable[..., Tensor] | None = None
        settings = decoder.settings
        self._channels = {plan.attention.channels(settings.width) for plan in settings.plans()}
        self._batches: set[int] = set()

    def refuses(self, call: Call) -> str | None:
        """Return why it cannot serve a call."""
        if call.cache is None or call.tokens.shape[1] != 1 or call.cache.rows == 0:
            return "only single tokens after a prompt are compiled"
        if call.watch is not None:
            return "hidden states are asked for"
        if call.lengths is not None and min(call.lengths) < 1:
            return "a row has nothing to read"
        if call.cache.state or None in call.cache.in_place:
            return "this cache, or an embedding that carries a state, has no static shape"
        batch = call.tokens.shape[0]
        if batch not in self._batches and len(self._batches) == _BATCHES:
            return f"{_BATCHES} sizes of batches are compiled already"
        return None

    def read(self, call: Call) -> Float[Tensor, "B n V"]:
        """Return the logits of the last position; the tokens become part of the past.

        Raises:
            UserError: the compiler is not there, or fails.
        """
        decoder = self._decoder()
        assert decoder is not None
        assert call.cache is not None
        begin, new = time.perf_counter(), call.tokens.shape[0] not in self._batches
        past = _StaticPast(call.cache, call.tokens)
        context = ForwardContext(cache=past, router_stats=False, run_block=self._run)
        with _compiler().config.patch(recompile_limit=_PROGRAMS):
            logits = decoder(call.tokens, context=context, last=1).logits
        assert logits is not None, "without targets the decoder returns logits"
        if new:
            self._batches.add(call.tokens.shape[0])
            self._notify(f"Compiled the decode step in {time.perf_counter() - begin:.0f} s.")
        return logits

    def _run(self, block: nn.Module, hidden: Tensor, context: ForwardContext) -> Tensor:
        """Compute one block."""
        rows, slots, rotation = context.rows, context.kv_cache, context.rotation
        assert rows is not None
        assert isinstance(slots, _Slots)
        if rotation is not None:
            self._prepare(rotation, hidden)
        if self._compiled is None:
            shared_cores().hold()  # torch compiles anew for each number of threads
            mode = "reduce-overhead" if self._on_cuda else None
            made: Any = torch.compile(_step, dynamic=False, backend=self._backend, mode=mode)
            self._compiled = made
        step = self._compiled
        assert step is not None
        if self._on_cuda:
            _compiler().mark_static_address(slots.keys)
            _compiler().mark_static_address(slots.values)
        try:
            return step(block, hidden, rows.positions, rotation, slots.keys, slots.values)
        except _compiler().exc.BackendCompilerFailed as error:
            raise UserError(
                f"The decode step could not be compiled: {str(error).splitlines()[0]}",
                hint="On a CPU this needs a C++ compiler (g++); without one take compute=auto.",
            ) from error

    def _prepare(self, rotation: Rotation, hidden: Tensor) -> None:
        """Have the rotation look its angles up before it enters the graph."""
        for channels in self._channels:
            rotation(hidden.new_zeros(1, 1, 1, channels))


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
    slots = _Slots(keys, values)
    context = ForwardContext(rows=rows, rotation=rotation, kv_cache=slots, router_stats=False)
    return block(hidden, context)[0]


class _Slots:
    """One layer's whole memory; a new position is written where it belongs."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values

    def append(
        self, keys: Tensor, values: Tensor, rows: UnevenRows | None = None
    ) -> tuple[Tensor, Tensor, KeyLayout]:
        """Write one position of each row and return all slots; empty ones stand too late."""
        assert rows is not None
        row = torch.arange(keys.shape[0], device=keys.device)
        at = rows.positions[:, 0]
        self.keys[row, :, at] = keys[:, :, 0]
        self.values[row, :, at] = values[:, :, 0]
        slots = torch.arange(self.keys.shape[2], device=keys.device)
        return self.keys, self.values, KeyLayout(positions=slots.expand(keys.shape[0], -1))


class _StaticPast:
    """The past of a batch for one compiled step: a stack whose layers are whole memories."""

    def __init__(self, stack: CacheStack, tokens: Int[Tensor, "B 1"]) -> None:
        self._stack = stack
        self._tokens = tokens
        self.length = stack.length
        self.state: dict[str, Any] = stack.state
        self.layers = tuple(_Slots(*layer.memory(1)) for layer in stack.layers)  # type: ignore[attr-defined]

    def place(
        self, tokens: Tensor, lengths: tuple[int, ...] | None, documents: Tensor | None
    ) -> UnevenRows:
        """Return where the new tokens will stand, row by row."""
        past = self._stack.lengths
        at = torch.tensor(past, device=tokens.device)[:, None]
        return UnevenRows(past, (1,) * len(past), at)

    def recent_tokens(self, count: int) -> Int[Tensor, "B n"] | None:
        """Return up to `count` of the latest tokens read."""
        return self._stack.recent_tokens(count)

    def extend(self, tokens: Int[Tensor, "B T"], rows: UnevenRows | None = None) -> None:
        """Make the tokens, whose keys were written, part of the past."""
        self._stack.advance(tokens)
