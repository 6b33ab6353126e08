"""Structure embeddings: every token knows where it stands in the play, by tags read so far.

For each kind of structure (who speaks, which scene, a stage direction) a token has a state, and
each state a vector that is added to the token's own, as BERT adds segment vectors (Devlin et al.
2018, arXiv:1810.04805). A state depends on the tokens up to the token itself alone: generation
hands it on in the cache, and it begins anew with each document.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from coterie.foundation.errors import SettingsError
from coterie.foundation.settings import Settings
from coterie.model.additive.interface import AdditivePart, AdditiveSettings
from coterie.model.additive.tags import Trace, mix, trace_tags
from coterie.model.costs import Count, lookup
from coterie.model.position import Span


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
    """Settings of the structure embedding."""

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
