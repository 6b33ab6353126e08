"""Between proportional and equal: w ∝ tokens^(1/T), as for languages of unequal resources.

Arivazhagan et al., Massively multilingual neural machine translation in the wild (2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from coterie.data.mix.protocol import Source
from coterie.data.mix.ratio import Ratio


class Temperature(Ratio):
    """Each source by its tokens to the power of 1/temperature: small ones are read more often."""

    kind: Literal["temperature"] = "temperature"
    temperature: float = Field(
        default=2.0, gt=0, description="1: proportional; the higher, the more equal"
    )

    def weights_of(self, sources: Sequence[Source]) -> list[float]:
        largest = max(source.tokens for source in sources) or 1  # no power overflows
        return [(source.tokens / largest) ** (1 / self.temperature) for source in sources]
