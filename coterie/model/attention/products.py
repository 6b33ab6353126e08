"""The products of attention: one call for every kind of attention, mask and back end.

The T queries are always the last T positions. What cannot be seen is cut off and what cannot matter
is dropped from the mask before a back end is asked, so that each can tell from the call alone what
it has to hide.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coterie.foundation.errors import UserError
from coterie.foundation.settings import kind_of
from coterie.model.attention.backends import AutoBackend, BackendSettings, Call
from coterie.model.attention.mask import Mask

_AUTO = AutoBackend()


def attend(
    query: Float[Tensor, "B H T C"],
    keys: Float[Tensor, "B K S C"],
    values: Float[Tensor, "B K S E"],
    mask: Mask,
    *,
    first: int = 0,
    starts: Int[Tensor, "B T"] | None = None,
    dropout: float = 0.0,
    scale: float | None = None,
    backend: BackendSettings = _AUTO,
) -> Float[Tensor, "B H T E"]:
    """Return softmax(scale · q·kᵀ)·v over the positions that each query may see.

    Args:
        query: of the last T positions.
        keys: of S ≥ T positions; head h of the queries reads head h // (H / K).
        values: of the same positions.
        mask: which positions see which.
        first: the absolute position of the run that the keys are of. Where it is not 0 and the
            mask has a window and sinks, the sinks stand before the run and `first` ≥ sinks.
        starts: where each position's document begins, where rows hold several; S is T then.
        dropout: share of the weights set to zero.
        scale: factor on the products of queries and keys; None: 1 / sqrt(C).
        backend: what computes them.

    Raises:
        UserError: the back end cannot compute this; the message says why and what can.
    """
    call = _prepared(query, keys, values, mask, first)
    if starts is not None:
        assert query.shape[2] == keys.shape[2], "documents cannot be read through a cache"
        call = replace(call, starts=starts)
    scale = query.shape[3] ** -0.5 if scale is None else scale
    call = replace(call, dropout=dropout, scale=scale)
    function = backend.build()
    reason = function.refuses(call)
    if reason is not None:
        kind = kind_of(type(backend))
        raise UserError(f"attention.backend={kind} cannot compute this: {reason}.")
    return function(call)


def _prepared(query: Tensor, keys: Tensor, values: Tensor, mask: Mask, first: int) -> Call:
    """Return the call with the keys cut to what can be seen and the mask to what can matter."""
    lead = mask.cache_spec().sinks if first else 0
    run = keys.shape[2] - lead
    assert first >= lead, "the run of keys begins within the sinks that stand before it"
    if mask.window is not None:
        skipped = run - query.shape[2] - mask.window + 1
        if not first:
            # The sinks are the run's own first positions: what lies between may go.
            lead = mask.sinks if skipped > mask.sinks else 0
            skipped = skipped if skipped > mask.sinks else 0
            first, run = lead, run - lead
            skipped -= lead
        if skipped > 0:
            keys, values = (_without(each, lead, skipped) for each in (keys, values))
            first, run = first + skipped, run - skipped
    mask = mask.within(run)
    if first == lead:
        first = lead = 0
    return Call(query, keys, values, mask, lead, first, None, 0.0, 1.0)


def _without(each: Tensor, start: int, count: int) -> Tensor:
    """Return keys or values without the `count` ones from `start` on."""
    if not start:
        return each[:, :, count:]
    return torch.cat((each[:, :, :start], each[:, :, start + count :]), dim=2)
