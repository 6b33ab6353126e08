"""A pack of experts of one kind and shape, their weights held together."""

from pydantic import Field

from coterie.foundation.settings import Settings
from coterie.model.costs import Count
from coterie.model.mlp import ExpertMLP, GatedMLP, MLPPart


class ExpertPack(Settings):
    """Settings of one pack; a layer may hold several under one router."""

    renamed = {"body": "mlp"}

    mlp: ExpertMLP = Field(default=GatedMLP(), description="what each expert computes")
    count: int = Field(ge=1, description="how many experts there are of it")

    @property
    def computes(self) -> bool:
        """Whether its experts have weights."""
        return self.mlp.counts("", 1).parameters > 0

    def build(self, width: int) -> MLPPart:
        return self.mlp.build(width, self.count)

    def counts(self, name: str, width: int) -> Count:
        """Return the count of all experts of the pack, as if each token went through all."""
        return self.mlp.counts(name, width).times(self.count)
