"""Each source by its size, as if all were one text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from coterie.data.mix.protocol import Source
from coterie.data.mix.ratio import Ratio


class Proportional(Ratio):
    """Each source by its tokens: all come to their ends together."""

    kind: Literal["proportional"] = "proportional"

    def weights_of(self, sources: Sequence[Source]) -> list[float]:
        return [float(source.tokens) for source in sources]
