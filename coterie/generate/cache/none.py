"""No cache: every step computes the whole text again. The yardstick of every other cache."""

from collections.abc import Sequence
from typing import Literal

from coterie.foundation.settings import Settings
from coterie.model import CacheSpec


class NoCacheSettings(Settings):
    """Keep nothing; each token costs as much as reading the whole text so far."""

    kind: Literal["none"] = "none"

    def build(self, specs: Sequence[CacheSpec], rollback: int = 0) -> None:
        """Make nothing: the engine reads the text from its start at every step."""
