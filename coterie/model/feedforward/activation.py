"""Activations by name.

GELU, x·Φ(x), and its tanh approximation: Hendrycks & Gimpel 2016, arXiv:1606.08415. SiLU (swish):
x·sigmoid(x). Squared ReLU, max(x, 0)²: So et al. 2021, arXiv:2109.08668.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

Activation = Literal["silu", "gelu", "gelu_tanh", "relu", "relu_squared"]


def relu_squared(x: Tensor) -> Tensor:
    """Return max(x, 0)²; as a product, for the derivative of a power is five times slower."""
    positive = F.relu(x)
    return positive * positive


ACTIVATIONS: Mapping[Activation, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "relu_squared": relu_squared,
}
