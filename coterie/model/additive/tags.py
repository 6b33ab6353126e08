"""Where each token stands between tags, found from the tokens so far and from nothing else.

A kind of structure has an opening and a closing token. For all kinds at once and every token this
file finds: whether it is inside (from the opening token on, up to before the closing one), how many
times the kind has been opened, and a hash of the tokens between the tags of the last closed pair.
An opening tag inside an open pair begins it anew; a closing tag outside closes nothing. What must
be known of the past fits into four numbers per kind, so a text can be read in pieces.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

_PRIME = 2**31 - 1
_BASE = 1_000_003
_MIXER = 1_540_483_477  # odd, spreads neighbouring residues over the whole range
_LONGEST = 64  # tokens of a name whose order counts; of longer ones the rest counts as a set


class Trace(NamedTuple):
    """What is known at each token, for each kind.

    Attributes:
        inside: between the tags, the opening token included and the closing one not.
        opened: how many pairs have been opened in this document.
        named: whether a pair has been closed in this document.
        name: hash of the tokens of the last closed pair, in [0, 2³¹ − 1); 0 where none was.
        state: what a later piece needs: inside, opened, named and name, hash of the open pair
            and tokens since its opening.
    """

    inside: Bool[Tensor, "B K T"]
    opened: Int[Tensor, "B K T"]
    named: Bool[Tensor, "B K T"]
    name: Int[Tensor, "B K T"]
    state: Int[Tensor, "B K 6"]


def trace_tags(
    tokens: Int[Tensor, "B T"],
    opening: Int[Tensor, " K"],
    closing: Int[Tensor, " K"],
    begins: Int[Tensor, "B T"] | None = None,
    state: Int[Tensor, "B K 6"] | None = None,
    last: Int[Tensor, " B"] | None = None,
) -> Trace:
    """Return where each token stands.

    Args:
        opening: id of each kind's opening tag.
        closing: id of each kind's closing tag.
        begins: index of the first token of each token's document, below 0 where it began in a piece
            before; None: all are of the document that the state is of.
        state: what the piece of text before this one left; None at the start of a text.
        last: the index of each row's last token, −1 where it has none; None: the last one.
    """
    batch, length = tokens.shape
    at = torch.arange(length, device=tokens.device)
    first = torch.zeros_like(at) if begins is None else begins[:, None].clamp(min=0)
    if state is None:
        state = tokens.new_zeros(batch, opening.shape[0], 6)
    before_all = [each.unsqueeze(-1) for each in state.unbind(-1)]
    if begins is not None:  # a document that begins here knows nothing of the one before
        continues = (begins < 0)[:, None]
        before_all = [each.where(continues, 0) for each in before_all]
    was_inside, was_opened, was_named, was_name, was_sum, was_since = before_all
    opens = tokens[:, None] == opening[:, None]
    closes = tokens[:, None] == closing[:, None]

    last_open, last_close = _latest(opens, at), _latest(closes, at)
    known = torch.maximum(last_open, last_close) >= first  # a tag of this document in this piece
    inside = torch.where(known, last_open > last_close, was_inside > 0)

    total = opens.cumsum(-1)
    before = total - opens.to(total.dtype)
    opened = was_opened + total - _at_first(before, first)

    here = last_open >= first  # the last opening of this document lies in this piece
    since = torch.where(here, at - last_open, was_since + at + 1)
    powers = _powers(tokens.device)[since.clamp(max=_LONGEST - 1)]
    terms = ((tokens[:, None] + 1) * powers % _PRIME).where(inside & ~opens, 0)
    running = terms.cumsum(-1)
    start = running.gather(-1, last_open.clamp(min=0)).where(here, -was_sum)
    partial = (running - start) % _PRIME

    was_open = torch.cat((was_inside[..., :1] > 0, inside[..., :-1]), -1)
    was_open = torch.where(at == first, (was_inside > 0) & (at == 0), was_open)
    ended = _latest(closes & was_open, at)
    ends_here = ended >= first
    name = partial.gather(-1, ended.clamp(min=0)).where(ends_here, was_name)
    named = ends_here | (was_named > 0)
    states = torch.stack((inside, opened, named, name, partial, since), -1)
    if last is None:
        return Trace(inside, opened, named, name, states[:, :, -1])
    at_last = last.clamp(min=0)[:, None, None, None].expand(-1, states.shape[1], 1, 6)
    state = states.gather(2, at_last)[:, :, 0].where((last >= 0)[:, None, None], state)
    return Trace(inside, opened, named, name, state)


def mix(name: Int[Tensor, "*N"]) -> Int[Tensor, "*N"]:
    """Spread hashes that lie close together over the whole range."""
    return name * _MIXER % _PRIME


def _latest(found: Bool[Tensor, "B K T"], at: Int[Tensor, " T"]) -> Int[Tensor, "B K T"]:
    """Return the index of the latest place found up to each token; −1 before the first."""
    return at.where(found, -1).cummax(-1).values


def _at_first(values: Int[Tensor, "B K T"], first: Tensor) -> Int[Tensor, "B K T"]:
    """Return for each token the value at the first token of its document."""
    return values.gather(-1, first.expand_as(values))


def powers() -> list[int]:
    """Return what a token is multiplied by in a name's hash, for each distance from the tag."""
    return [pow(_BASE, i, _PRIME) for i in range(_LONGEST)]


@lru_cache(maxsize=8)
def _powers(device: torch.device) -> Int[Tensor, " n"]:
    with torch.inference_mode(False):  # made while generating, it must serve training as well
        return torch.tensor(powers(), device=device)
