"""What a decoder may return besides logits, each an optional part of its settings.

`mtp` predicts further tokens while training, `ngram` counts what follows n-grams, `value` gives
each position a number, `pooled` gives each text a vector. The head of the language model itself is
`coterie.model.head`.
"""

from coterie.model.heads.mtp import MTPModule, MTPSettings, mtp_targets
from coterie.model.heads.ngram import NgramModel, NgramSettings
from coterie.model.heads.pooled import PooledSettings
from coterie.model.heads.value import ValueSettings
