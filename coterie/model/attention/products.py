"""The products of attention: one call for every kind of attention, mask and back end.

What no query can see is cut off and what cannot matter is dropped from the mask before a back end
is asked, so that each can tell from the call alone what it has to hide.
"""

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from coterie.foundation.errors import UserError
from coterie.foundation.settings import kind_of
from coterie.model.attention.backends import AutoBackend, BackendSettings, Call
from coterie.model.attention.mask import Mask
from coterie.model.context import ForwardContext
from coterie.model.geometry import Geometry, narrowed

_AUTO = AutoBackend()


def with_past(
    keys: Float[Tensor, "B K T C"], values: Float[Tensor, "B J T E"], context: ForwardContext
) -> tuple[Float[Tensor, "B K S C"], Float[Tensor, "B J S E"], Geometry]:
    """Return the keys and values of the new tokens with those of the past, and where they stand."""
    number = keys.shape[2]
    if context.kv_cache is None:
        return keys, values, Geometry(number, number, starts=context.document_starts)
    keys, values, layout = context.kv_cache.append(keys, values, context.rows)
    return keys, values, Geometry.of(number, keys.shape[2], layout, context.rows)


def attend(
    query: Float[Tensor, "B H T C"],
    keys: Float[Tensor, "B K S C"],
    values: Float[Tensor, "B K S E"],
    mask: Mask,
    geometry: Geometry | None = None,
    *,
    dropout: float = 0.0,
    scale: float | None = None,
    backend: BackendSettings = _AUTO,
) -> Float[Tensor, "B H T E"]:
    """Return softmax(scale · q·kᵀ)·v over the positions that each query may see.

    Args:
        query: of T positions; head h of the queries reads head h // (H / K) of the keys.
        keys: of S ≥ T positions.
        geometry: where queries and keys stand; None: the keys are positions 0 … S − 1 and the
            queries the last of them.
        scale: factor on the products of queries and keys; None: 1 / sqrt(C).

    Raises:
        UserError: the back end cannot compute this; the message says why and what can.
    """
    geometry = geometry or Geometry(query.shape[2], keys.shape[2])
    call = prepared(query, keys, values, mask, geometry)
    factor = float(query.shape[3]) ** -0.5 if scale is None else scale
    call = replace(call, dropout=dropout, scale=factor)
    function = backend.build()
    reason = function.refuses(call)
    if reason is not None:
        kind = kind_of(type(backend))
        raise UserError(f"attention.backend={kind} cannot compute this: {reason}.")
    return function(call)


def prepared(query: Tensor, keys: Tensor, values: Tensor, mask: Mask, where: Geometry) -> Call:
    """Return the call with the keys cut to what can be seen and the mask to what can matter."""
    where, (keys, values) = narrowed(where, mask, keys, values)
    if not where.ragged:
        mask = mask.within(where.num_keys - where.num_sinks)
        if where.num_sinks and where.start_position == where.num_sinks:
            where = replace(where, num_sinks=0, start_position=0)
    return Call(query, keys, values, mask, where, 0.0, 1.0)
