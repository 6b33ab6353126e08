"""What a decoder may answer besides logits, each an optional part of its settings.

`ahead` predicts further tokens while training, `value` gives each position a number, `pooled` gives
each text a vector. The head of the language model itself is `coterie.model.head`.
"""

from coterie.model.heads.ahead import AheadModule, AheadSettings, ahead_targets
from coterie.model.heads.pooled import PooledSettings
from coterie.model.heads.value import ValueSettings

__all__ = [
    "AheadModule",
    "AheadSettings",
    "PooledSettings",
    "ValueSettings",
    "ahead_targets",
]
