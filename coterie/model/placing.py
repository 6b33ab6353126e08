"""From what a caller says of tokens to where they stand: positions, documents, rotation."""

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from coterie.batch import IGNORE
from coterie.model.cache import DecoderCache
from coterie.model.context import ForwardContext
from coterie.model.geometry import document_starts, real_tokens, text_lengths
from coterie.model.position import PositionPart, Span


def with_valid(
    context: ForwardContext, tokens: Int[Tensor, "B T"], targets: Int[Tensor, "B T"] | None
) -> ForwardContext:
    """Return the context with the tokens that count: those with a target, or all but padding."""
    if context.valid is not None:
        return context
    if targets is not None:
        return context.but(valid=targets != IGNORE)
    if context.lengths is None or min(context.lengths) == tokens.shape[1]:
        return context
    return context.but(valid=real_tokens(context.lengths, tokens.shape[1], tokens.device))


def placed(
    context: ForwardContext, tokens: Tensor, position: PositionPart
) -> tuple[ForwardContext, Span]:
    """Return the context with where the tokens stand filled in, and their positions.

    Args:
        tokens: [B, T, …], of which the sizes and the device matter.
    """
    if context.cache is None:
        context, span = _at_once(context, tokens, position.stable is not None)
    else:
        context, span = _after_the_past(context, context.cache, tokens)
    return context.but(rotation=position.rotation(span)), span


def _at_once(
    context: ForwardContext, tokens: Tensor, lengths_matter: bool
) -> tuple[ForwardContext, Span]:
    """Place rows that are read from their beginning; padding comes last and is seen by nobody."""
    batch, number, device = tokens.shape[0], tokens.shape[1], tokens.device
    at = starts = sizes = None
    if context.documents is not None:
        starts = document_starts(context.documents)
        at = torch.arange(number, device=device) - starts
    said = (starts, context.lengths, context.positions)
    if lengths_matter and any(each is not None for each in said):
        at = torch.arange(number, device=device).expand(batch, -1) if at is None else at
        lengths = context.lengths
        real = None if lengths is None else real_tokens(lengths, number, device)
        sizes = text_lengths(at, real)
    # Where lengths matter the longest document decides, not the row.
    stop = None if lengths_matter else number
    span = Span(0, number, device, at, context.positions, sizes, None, stop)
    return context.but(document_starts=starts), span


def _after_the_past(
    context: ForwardContext, cache: DecoderCache, tokens: Tensor
) -> tuple[ForwardContext, Span]:
    """Place rows that go on from what a cache has read."""
    rows = cache.place(tokens, context.lengths, context.documents)
    at = last = stop = None
    if rows is not None:
        at = rows.positions if rows.starts is None else rows.positions - rows.starts
        last, stop = rows.last, max(rows.totals) if rows.starts is None else None
    span = Span(
        cache.length, tokens.shape[1], tokens.device, at, context.positions, None, last, stop
    )
    return context.but(rows=rows), span


def latest(
    hidden: Shaped[Tensor, "B T D"], count: int, lengths: tuple[int, ...] | None
) -> Shaped[Tensor, "B n D"]:
    """Return the last `count` positions of each row, padding left out.

    A row with fewer has its first one repeated before them.
    """
    number = hidden.shape[1]
    if lengths is None or min(lengths) == number:
        return hidden[:, -count:]
    ends = torch.tensor(lengths, device=hidden.device)[:, None]
    at = ends - min(count, number) + torch.arange(min(count, number), device=hidden.device)
    rows = torch.arange(hidden.shape[0], device=hidden.device)[:, None]
    return hidden[rows, at.clamp(min=0)]
