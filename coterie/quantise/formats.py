"""The formats of weights, a closed union, and how one is chosen where a model is loaded."""

from typing import Annotated

from pydantic import Field

from coterie.foundation.layers import Layer, load_settings
from coterie.foundation.settings import Settings, union
from coterie.quantise.int4 import Int4Weights
from coterie.quantise.int8 import Int8Weights
from coterie.quantise.settings import WeightSettings

Weights = Annotated[Int8Weights | Int4Weights, union(Int8Weights, Int4Weights)]

_HINT = "For example: weights=int8   or: weights=int4 weights.head=float32"


class WeightChoice(Settings):
    """What a model's weights are made when it is loaded."""

    weights: Weights | None = Field(
        default=None, description="format of the weights; None: as they were stored"
    )


def chosen_weights(*layers: Layer) -> WeightSettings | None:
    """Return the format that layers with the key `weights` choose.

    Raises:
        SettingsError: there is no such format or setting.
    """
    return load_settings(WeightChoice, layers, _HINT).settings.weights
