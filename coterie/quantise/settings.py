"""What settings of every weight format say, and which weights they mean."""

from abc import ABC, abstractmethod

from torch import Tensor

from coterie.foundation.settings import Settings
from coterie.model import Role
from coterie.quantise.tensor import QuantisedTensor


class WeightSettings(Settings, ABC):
    """Base of the settings of a weight format."""

    def format_of(self, role: Role) -> str:
        """Return the format of a parameter of this role; float32 where it stays as it is.

        Matrices have that of the settings, embeddings and heads one of their own. Norms, biases and
        routers are few bytes, and a router's choice is the one thing that must not waver.
        """
        own = str(getattr(self, "kind", ""))
        embedding, head = (str(getattr(self, name, own)) for name in ("embedding", "head"))
        formats = {"matrix": own, "embedding": embedding, "table": embedding, "head": head}
        return formats.get(role, "float32")

    @abstractmethod
    def quantised(self, weight: Tensor, role: Role) -> QuantisedTensor | None:
        """Return a weight in its role's format; None where it stays as it is."""
