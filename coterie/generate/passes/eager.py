"""The decoder itself, called as it is: serves every model, cache and call."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from coterie.generate.passes.interface import Call
from coterie.model import Decoder
from coterie.model.context import ForwardContext


class EagerPass:
    """Calls the decoder; whoever uses it switches gradients and dropout off."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._last = decoder.settings.layers - 1

    def refuses(self, call: Call) -> None:
        """Return None: it serves every call."""

    def read(self, call: Call) -> Float[Tensor, "B n V"]:
        observers = (_LastBlock(self._last, call.watch),) if call.watch else ()
        context = ForwardContext(
            cache=call.cache, lengths=call.lengths, router_stats=False, observers=observers
        )
        logits = self._decoder(call.tokens, context=context, last=call.last).logits
        assert logits is not None, "without targets the decoder returns logits"
        return logits


@dataclass(frozen=True)
class _LastBlock:
    """Hands on what the last block made of the tokens."""

    last: int
    watch: Callable[[Tensor], None]

    def layer_done(self, layer: int, hidden: Float[Tensor, "B T D"]) -> None:
        if layer == self.last:
            self.watch(hidden)
