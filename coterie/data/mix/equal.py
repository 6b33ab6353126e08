"""As many rows from each source as from any other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from coterie.data.mix.protocol import Source
from coterie.data.mix.ratio import Ratio


class Equal(Ratio):
    """As many rows from each source as from any other."""

    kind: Literal["equal"] = "equal"

    def weights_of(self, sources: Sequence[Source]) -> list[float]:
        return [1.0] * len(sources)
