"""Additive embeddings: vectors added to the tokens' own before the first block, a closed union.

Each says of every token something that the token's id does not, such as where it stands between
tags. The decoder adds up what its parts return and hands each what it left in the cache.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from coterie.foundation.errors import SettingsError
from coterie.foundation.settings import Settings, union
from coterie.model.costs import Count, lookup
from coterie.model.part import Part
from coterie.model.position import Span


class AdditiveSettings(Settings):
    """Base of the settings of additive embeddings."""

    def tags(self) -> dict[str, str]:
        """Return the texts that must each be one token, by the name of their setting."""
        return {}

    def with_ids(self, ids: Mapping[str, int]) -> "AdditiveSettings":
        """Return the settings with the token of each such text filled in."""
        return self

    def build(self, width: int) -> "AdditivePart":
        """Return the module for a stream of this width."""
        raise NotImplementedError

    def counts(self, width: int) -> Count:
        """Return its count."""
        raise NotImplementedError


class AdditivePart(Part):
    """Base of additive embeddings."""

    def vectors(
        self, tokens: Int[Tensor, "B T"], span: Span, state: Tensor | None = None
    ) -> tuple[Float[Tensor, "*B T D"], Tensor | None]:
        """Return what is added to the tokens' vectors, and what the next call needs to know.

        Args:
            state: [B, …], what the call before returned for the same rows; None at their start.
        """
        raise NotImplementedError


_PRIME = 2**31 - 1
_BASE = 1_000_003
_MIXER = 1_540_483_477  # odd, spreads neighbouring residues over the whole range
_LONGEST = 64  # tokens of a name whose order counts; of longer ones the rest counts as a set


class Trace(NamedTuple):
    """What is known at each token, for each kind of structure, which has two tags.

    An opening tag inside an open pair begins it anew; a closing tag outside closes nothing. What
    must be known of the past fits into a few numbers per kind, so a text can be read in pieces.

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
    """Return where each token stands between tags, from the tokens so far and from nothing else.

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


class TagSettings(Settings):
    """One kind of structure and the tags around it.

    The states of `inside` are outside and inside; of `count`, the same two for each number of times
    the kind was opened, modulo `bound`, and for none yet; of `name`, none yet, inside, and the text
    between the tags hashed to one of `bound`, which holds until the kind is opened again.
    """

    opening: str = Field(min_length=1, description="the tag that begins it, one token")
    closing: str = Field(min_length=1, description="the tag that ends it, one token")
    follow: Literal["inside", "count", "name"] = Field(
        default="inside", description="what a token knows of it"
    )
    bound: int = Field(default=16, ge=1, description="numbers or names told apart")
    opening_id: int | None = Field(
        default=None, ge=0, description="the opening tag's token; None: taken from the tokenizer"
    )
    closing_id: int | None = Field(
        default=None, ge=0, description="the closing tag's token; None: taken from the tokenizer"
    )

    @model_validator(mode="after")
    def _differ(self) -> "TagSettings":
        if self.opening == self.closing:
            raise ValueError(f"one tag, “{self.opening}”, cannot both open and close")
        return self

    @property
    def states(self) -> int:
        """How many states a token can be in."""
        return {"inside": 2, "count": 2 * (self.bound + 1), "name": self.bound + 2}[self.follow]


class StructureEmbedding(AdditiveSettings):
    """Structure embeddings: every token knows where it stands in the play, by tags read so far.

    For each kind of structure (who speaks, which scene, a stage direction) a token has a state, and
    each state a vector that is added to the token's own, as BERT adds segment vectors (Devlin et
    al. 2018, arXiv:1810.04805). A state depends on the tokens up to the token itself alone:
    generation hands it on in the cache, and it begins anew with each document.
    """

    kind: Literal["structure"] = "structure"

    kinds: dict[str, TagSettings] = Field(
        min_length=1, description="kinds of structure by name, such as speaker, scene and stage"
    )

    def tags(self) -> dict[str, str]:
        """Return every tag by the name of its setting, such as `speaker.opening`."""
        return {
            f"kinds.{name}.{side}": tag
            for name, kind in self.kinds.items()
            for side, tag in (("opening", kind.opening), ("closing", kind.closing))
        }

    def with_ids(self, ids: Mapping[str, int]) -> "StructureEmbedding":
        """Return the settings with every tag's token filled in from a mapping of tags."""
        kinds = {
            name: kind.model_copy(
                update={"opening_id": ids[kind.opening], "closing_id": ids[kind.closing]}
            )
            for name, kind in self.kinds.items()
        }
        return self.model_copy(update={"kinds": kinds})

    def build(self, width: int) -> "StructurePart":
        return StructurePart(self, width)

    def counts(self, width: int) -> Count:
        """Return its count: look-ups alone."""
        rows = sum(kind.states for kind in self.kinds.values())
        return lookup("structure", rows, width)


class StructurePart(AdditivePart):
    """One table for the states of all kinds, one kind after the other."""

    roles = {"weight": "embedding"}

    def __init__(self, settings: StructureEmbedding, width: int) -> None:
        super().__init__()
        self.kinds = tuple(settings.kinds.values())
        self.weight = nn.Parameter(torch.empty(sum(kind.states for kind in self.kinds), width))
        self.ids = [(kind.opening_id, kind.closing_id) for kind in self.kinds]

    def vectors(
        self, tokens: Int[Tensor, "B T"], span: Span, state: Int[Tensor, "B K 6"] | None = None
    ) -> tuple[Float[Tensor, "B T D"], Int[Tensor, "B K 6"]]:
        """Return the sum of the vectors of each token's states, and what the next call needs.

        Raises:
            SettingsError: the tags' tokens are not known.
        """
        states, state = self.states(tokens, span.begins, state, span.last)
        return F.embedding(states, self.weight).sum(-2), state

    def states(
        self,
        tokens: Tensor,
        begins: Tensor | None = None,
        state: Tensor | None = None,
        last: Tensor | None = None,
    ) -> tuple[Int[Tensor, "B T K"], Int[Tensor, "B K 6"]]:
        """Return the row of each token's state of each kind, and what the next piece needs."""
        opening, closing = self._ids(tokens.device).unbind(-1)
        trace = trace_tags(tokens, opening, closing, begins, state, last)
        rows, before = [], 0
        for number, kind in enumerate(self.kinds):
            rows.append(before + _state(kind, trace, number))
            before += kind.states
        return torch.stack(rows, -1), trace.state

    def _ids(self, device: torch.device) -> Int[Tensor, "K 2"]:
        if any(None in pair for pair in self.ids):
            raise SettingsError(
                "The tokens of the model's structure tags are not known.",
                hint="Set opening_id and closing_id of each kind in model.additive, or build the "
                "model together with its tokenizer.",
            )
        return torch.tensor(self.ids, device=device)


def _state(kind: TagSettings, trace: Trace, number: int) -> Int[Tensor, "B T"]:
    """Return the state of one kind at each token, from 0 on."""
    inside = trace.inside[:, number].long()
    if kind.follow == "inside":
        return inside
    if kind.follow == "count":
        opened = trace.opened[:, number]
        turn = ((opened - 1) % kind.bound + 1).where(opened > 0, 0)
        return 2 * turn + inside
    name = mix(trace.name[:, number]) % kind.bound + 2
    return name.where(trace.named[:, number], 0).where(inside == 0, 1)


AdditiveEmbedding = Annotated[StructureEmbedding, union(StructureEmbedding)]
