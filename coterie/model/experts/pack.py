"""A pack of experts: so many bodies of one kind and shape, their weights held together."""

from __future__ import annotations

from pydantic import Field

from coterie.foundation.settings import Settings
from coterie.model.costs import Count
from coterie.model.experts.bodies import BodyPart, ExpertBody, SwiGLU


class ExpertPack(Settings):
    """Settings of one pack; a layer may hold several under one router."""

    body: ExpertBody = Field(default=SwiGLU(), description="what each expert computes")
    count: int = Field(ge=1, description="how many experts there are of it")

    @property
    def computes(self) -> bool:
        """Whether its experts have weights."""
        return self.body.counts("", 1).parameters > 0

    def build(self, width: int) -> BodyPart:
        """Return the packed bodies."""
        return self.body.build(width, self.count)

    def counts(self, name: str, width: int) -> Count:
        """Return the count of all experts of the pack, as if each token went through all."""
        return self.body.counts(name, width).times(self.count)
