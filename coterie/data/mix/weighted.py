"""Each source by a weight of the user's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import Field, field_validator

from coterie.data.mix.protocol import Source
from coterie.data.mix.ratio import Ratio
from coterie.foundation.errors import DataError, nearest

Weights = tuple[float, ...] | dict[str, float]


class Weighted(Ratio):
    """Each source by a weight of yours: 0.7 and 0.3 is the same as 7 and 3."""

    kind: Literal["weighted"] = "weighted"
    weights: Weights = Field(description="one for each source in order, or by their names")

    @field_validator("weights")
    @classmethod
    def _usable(cls, weights: Weights) -> Weights:
        values = list(weights.values() if isinstance(weights, dict) else weights)
        if odd := [value for value in values if not (value >= 0 and math.isfinite(value))]:
            raise ValueError(f"a weight must be a number from 0 on, not {odd[0]:g}")
        if not 0 < sum(values) < math.inf:
            raise ValueError(f"the weights add up to {sum(values):g}: one must be above 0")
        return weights

    def weights_of(self, sources: Sequence[Source]) -> list[float]:
        names = [source.name for source in sources]
        if not isinstance(self.weights, dict):
            if len(self.weights) != len(names):
                raise DataError(
                    f"{len(self.weights)} weights were given for {len(names)} sources: "
                    f"{', '.join(names)}."
                )
            return list(self.weights)
        if unknown := [name for name in self.weights if name not in names]:
            raise DataError(
                f"There is a weight for “{unknown[0]}”, but no such source; "
                f"{nearest(unknown[0], names)}"
            )
        if missing := [name for name in names if name not in self.weights]:
            raise DataError(f"There is no weight for the source “{missing[0]}”.")
        return [self.weights[name] for name in names]
