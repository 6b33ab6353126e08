"""Which passes serve a decoder, and whether the native one pays."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Literal
from weakref import WeakKeyDictionary

from coterie.foundation.errors import UserError
from coterie.generate import native
from coterie.generate.passes.compiled import CompiledBlocks, CompiledPass
from coterie.generate.passes.eager import EagerPass
from coterie.generate.passes.interface import Pass
from coterie.generate.passes.native import NativePass
from coterie.generate.passes.recorded import RecordedPass
from coterie.model import Decoder, count

Compute = Literal["auto", "torch", "compiled", "native"]
"""What computes single tokens: torch, torch's compiler, our own kernels, or what serves and pays:
on a CPU these kernels, on CUDA torch's recorded as a graph."""

_TOKEN = 5e6
"""What a token costs in torch besides its weights, in parameters read in that time."""
_LOADING, _COMPILING = 4e9, 8e9
"""What it costs to load kernels, and half of what to compile them first, for that serves further
texts too; in parameters read in that time."""
_RECORDING = 16
"""How many tokens must follow for recording a step, which takes a few, to pay."""
_known: WeakKeyDictionary[Decoder, NativePass] = WeakKeyDictionary()
_compiled: WeakKeyDictionary[Decoder, CompiledPass | RecordedPass] = WeakKeyDictionary()
_recorded: WeakKeyDictionary[Decoder, RecordedPass] = WeakKeyDictionary()


def passes_for(
    decoder: Decoder,
    compute: Compute = "auto",
    tokens: int = 0,
    notify: Callable[[str], None] | None = None,
) -> tuple[Pass, ...]:
    """Return the ways to compute logits, the preferred one first; the last serves every call.

    Args:
        tokens: about how many will be, for `auto` to judge whether kernels pay.
        notify: told when kernels are compiled.

    Raises:
        UserError: `native` was asked for, and it cannot compute this model.
    """
    eager, on_cuda = EagerPass(decoder), next(decoder.parameters()).device.type == "cuda"
    if compute == "torch":
        return (eager,)
    if compute == "compiled":
        if decoder not in _compiled:
            _compiled[decoder] = (
                RecordedPass(decoder, notify, CompiledBlocks(decoder))
                if on_cuda
                else CompiledPass(decoder, notify)
            )
        return (_compiled[decoder], eager)
    if compute == "auto" and on_cuda:
        if tokens < _RECORDING:
            return (eager,)
        if decoder not in _recorded:
            _recorded[decoder] = RecordedPass(decoder, notify)
        return (_recorded[decoder], eager)
    if compute == "auto" and decoder not in _known and not _pays(decoder, tokens):
        return (eager,)
    if decoder not in _known:
        _known[decoder] = NativePass(decoder, notify)
    reason = _known[decoder].reason
    if compute == "native" and reason is not None:
        raise UserError(
            f"compute=native cannot decode with this model: {reason}.",
            hint="Leave compute at auto, which takes torch for what has no kernel.",
        )
    return (_known[decoder], eager)


def _pays(decoder: Decoder, tokens: int) -> bool:
    """Return whether so many tokens are worth loading the kernels, or compiling them."""
    if find_spec("numba") is None or next(decoder.parameters()).device.type != "cpu":
        return False
    work = tokens * (count(decoder.settings).active_parameters + _TOKEN)
    return work >= (_LOADING if native.compiled_before() else _COMPILING)
