"""Weights in few bits: formats (a closed union), the tensors that hold them, whole models.

`quantise` changes a decoder in place, `install` puts stored weights into one, `to_stored` and
`from_stored` are how they lie in files. The model knows nothing of it.
"""

from coterie.quantise.formats import (
    Int4Tensor,
    Int4Weights,
    Int8Tensor,
    Int8Weights,
    Weights,
    WeightSettings,
    chosen_weights,
)
from coterie.quantise.model import dequantise, install, quantise, weights_of
from coterie.quantise.sizes import bytes_by_format
from coterie.quantise.stored import from_stored, stored_kinds, to_stored
from coterie.quantise.tensor import QuantisedTensor, stored_bytes
