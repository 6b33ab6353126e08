"""Dropout: what training sets to zero at random, a closed union; and stochastic depth.

A bare number is the rate of independent dropout: `dropout: 0.1`.
"""

from typing import Annotated, Any

from pydantic import BeforeValidator

from coterie.foundation.settings import union
from coterie.model.dropout.depth import StochasticDepth, depth_rate
from coterie.model.dropout.independent import IndependentDropout
from coterie.model.dropout.structured import StructuredDropout


def _from_number(value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return {"kind": "independent", "rate": value} if number else value


Dropout = Annotated[
    IndependentDropout | StructuredDropout,
    union(IndependentDropout, StructuredDropout),
    BeforeValidator(_from_number),
]
