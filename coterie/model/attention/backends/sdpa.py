"""torch's scaled dot-product attention, which chooses among fused kernels by itself.

Nothing is masked that need not be: the fused kernels are fastest without a mask, or with the causal
one that they know.
"""

from typing import Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from coterie.model.attention.backends.interface import (
    BackendFunction,
    BackendSettings,
    Call,
    of_equal_channels,
    shared_heads,
)


class SDPABackend(BackendSettings):
    """Settings of scaled dot-product attention."""

    kind: Literal["sdpa"] = "sdpa"

    def build(self) -> "SDPAFunction":
        return _FUNCTION


class SDPAFunction(BackendFunction):
    """One call of `torch.nn.functional.scaled_dot_product_attention`."""

    def scores(self, call: Call) -> int:
        """Return how many scores are held at once: none, but a mask of all pairs where needed."""
        if call.open or (call.causal and call.query.shape[2] == call.keys.shape[2]):
            return 0
        return call.query.shape[2] * call.keys.shape[2]

    def __call__(self, call: Call) -> Float[Tensor, "B H T E"]:
        if call.query.shape[2] == 1:
            return _one_query(call)
        on_cpu, channels = call.query.device.type == "cpu", call.values.shape[3]
        query, keys, values = call.query, call.keys, call.values
        if on_cpu:
            query, keys, values = of_equal_channels(call)
        else:  # not every kernel there knows groups
            keys, values = (shared_heads(each, call.groups) for each in (keys, values))
        causal = call.causal and keys.shape[2] == query.shape[2]
        mask = None if causal else call.visible()
        out = F.scaled_dot_product_attention(
            query, keys, values, mask, call.dropout, causal,
            scale=call.scale, enable_gqa=on_cpu and call.groups > 1,
        )  # fmt: skip
        return out if out.shape[3] == channels else out[..., :channels]


_FUNCTION = SDPAFunction()


def _one_query(call: Call) -> Float[Tensor, "B H 1 E"]:
    """The heads that share keys become rows, for all of them see the same; no key is repeated."""
    query, mask = call.query, None if call.open else call.visible()
    rows = query.reshape(query.shape[0], call.keys.shape[1], -1, query.shape[-1])
    out = F.scaled_dot_product_attention(
        rows, call.keys, call.values, mask, call.dropout, scale=call.scale
    )
    return out.reshape(*query.shape[:3], -1)
