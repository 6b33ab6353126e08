"""Feed-forward networks (MLPs): a closed union, one file per function, and the dense layer.

An MLP serves alone (a dense layer, a shared expert) or packed, many experts of one shape with their
weights [experts, out, in]. It states its mathematics once, in `run`, over whatever stands for a
linear map: torch's own for one expert, a grouped or batched product for many at once. A routed
expert may also be `null`, without weights. The union of dense and routed layers is in `layer`.
"""

from typing import Annotated

from coterie.foundation.migration import MLP_KINDS
from coterie.foundation.settings import union
from coterie.model.feedforward.deep import DeepMLP
from coterie.model.feedforward.gated import GatedMLP
from coterie.model.feedforward.hybrid import HybridMLP
from coterie.model.feedforward.interface import MLPPart, Weights
from coterie.model.feedforward.null import NullMLP
from coterie.model.feedforward.plain import PlainMLP
from coterie.model.feedforward.wide import WideMLP

MLP = Annotated[
    GatedMLP | PlainMLP | DeepMLP | WideMLP | HybridMLP,
    union(GatedMLP, PlainMLP, DeepMLP, WideMLP, HybridMLP, renamed=MLP_KINDS),
]
ExpertMLP = Annotated[
    GatedMLP | PlainMLP | DeepMLP | WideMLP | HybridMLP | NullMLP,
    union(GatedMLP, PlainMLP, DeepMLP, WideMLP, HybridMLP, NullMLP, renamed=MLP_KINDS),
]
