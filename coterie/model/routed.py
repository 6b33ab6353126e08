"""The routed layers of a decoder, and what their balances learn from an optimizer step."""

from collections.abc import Mapping

from jaxtyping import Float, Int
from torch import Tensor

from coterie.model.decoder import Decoder
from coterie.model.experts import MixtureOfExpertsPart


def routed_layers(decoder: Decoder) -> dict[int, MixtureOfExpertsPart]:
    """Return the routed feed-forward layers of a decoder by their index.

    The blocks of multi-token prediction come after the decoder's own.
    """
    blocks = [*decoder.blocks, *(module.block for module in decoder.mtp)]
    parts = ((layer, block.feedforward) for layer, block in enumerate(blocks))
    return {layer: part for layer, part in parts if isinstance(part, MixtureOfExpertsPart)}


def update_balance(decoder: Decoder, loads: Mapping[int, Int[Tensor, " E"]]) -> None:
    """Let each layer's balance learn from a whole optimizer step; call it once after each.

    Args:
        loads: valid (token, expert) pairs of each expert by layer, summed over micro-batches and
            processes.
    """
    layers = routed_layers(decoder)
    for layer, load in loads.items():
        layers[layer].balance.update(load)


def selection_biases(decoder: Decoder) -> dict[int, Float[Tensor, " E"]]:
    """Return the selection bias of each layer that has one; later updates do not change it."""
    biases = {i: part.balance.selection_bias for i, part in routed_layers(decoder).items()}
    return {layer: bias.detach().clone() for layer, bias in biases.items() if bias is not None}
