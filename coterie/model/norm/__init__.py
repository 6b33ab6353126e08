"""Normalisation: a closed union, one file per kind."""

from typing import Annotated

from coterie.foundation.settings import union
from coterie.model.norm.layer import LayerNorm
from coterie.model.norm.rms import RMSNorm

Norm = Annotated[RMSNorm | LayerNorm, union(RMSNorm, LayerNorm)]
