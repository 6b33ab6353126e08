"""The settings of a mask, shared by every kind of attention, and the back end that computes it."""

from pydantic import Field, model_validator

from coterie.foundation.settings import Settings
from coterie.model.attention.backends import AutoBackend, Backend
from coterie.model.attention.mask import Mask
from coterie.model.attention.sparse import Sparse
from coterie.model.cache import CacheSpec


class MaskSettings(Settings):
    """What every kind of attention lets a token see; `coterie.model.attention.mask` defines it.

    Attention settings derive from it.
    """

    window: int | None = Field(
        default=None,
        ge=1,
        description="positions a token sees, its own included; None: all before it",
    )
    sinks: int = Field(
        default=0, ge=0, description="first positions of the text that every token sees besides"
    )
    sparse: Sparse | None = Field(
        default=None, description="which positions within the window a token sees; None: all"
    )
    backend: Backend = Field(default=AutoBackend(), description="what computes the products")

    @model_validator(mode="after")
    def _mask_makes_sense(self) -> "MaskSettings":
        if self.sinks and self.window is None and self.sparse is None:
            raise ValueError(
                f"sinks={self.sinks} has no effect where every token sees all before it; "
                "set window or sparse, or leave sinks at 0"
            )
        self.backend.check(self.mask())
        return self

    def mask(self) -> Mask:
        """Return which positions see which."""
        return Mask(self.window, self.sinks, self.sparse)

    def cache_spec(self) -> CacheSpec:
        return self.mask().cache_spec()


__all__ = ["Mask", "MaskSettings"]
