"""A decoder with quantised weights: making one, undoing it, and what its weights take."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from coterie.foundation.errors import UserError
from coterie.model.experts.dispatch import Dispatcher
from coterie.model.experts.kernel.gather import Gather
from coterie.model.experts.kernel.interface import ExpertKernel, Packs
from coterie.model.experts.kernel.loop import Loop
from coterie.model.experts.layer import MixtureOfExpertsPart
from coterie.model.mlp import MLPPart
from coterie.model.part import owned_parameters
from coterie.quantise.formats import WeightSettings
from coterie.quantise.tensor import QuantisedTensor, dequantised


class ChosenExperts(ExpertKernel):
    """The gather path for a lone token, the loop for others: no other expert is made float.

    Grouped and padded products would ask for all experts of a pack as one float tensor.
    """

    def __init__(self, instead_of: ExpertKernel) -> None:
        self._instead_of = instead_of
        self._gather, self._loop = Gather(), Loop()

    @classmethod
    def around(cls, kernel: ExpertKernel, quantised: bool) -> ExpertKernel:
        """Return the kernel for experts that are quantised or, instead of which it was, are not."""
        own = kernel._instead_of if isinstance(kernel, ChosenExperts) else kernel
        return cls(own) if quantised else own

    def chosen(
        self, packs: Packs, x: Tensor, indices: Tensor, dispatcher: Dispatcher
    ) -> ExpertKernel:
        """Return the kernel for these tokens."""
        return self._gather if len(x) == 1 and dispatcher.local else self._loop

    def rows(
        self, pack: MLPPart, rows: Float[Tensor, "N D"], counts: Int[Tensor, " E"]
    ) -> Float[Tensor, "N D"]:
        return self._loop.rows(pack, rows, counts)


def quantise(decoder: nn.Module, weights: WeightSettings) -> None:
    """Quantise the weights of a decoder in place, one after the other.

    Raises:
        UserError: they are quantised already, or one is not finite.
    """
    if kind := weights_of(decoder):
        raise UserError(
            f"The weights are {kind} already; quantising them again would add its errors to those.",
            hint="Quantise the run that they were made from; origin.json in the run names it.",
        )
    made: dict[str, Tensor] = {}
    for name, parameter, _, _, role in owned_parameters(decoder):
        weight = weights.quantised(parameter, role)
        if weight is None:
            continue
        if not parameter.is_meta and not bool(torch.isfinite(parameter).all()):
            raise UserError(f"{name} holds values that are not finite; they cannot be quantised.")
        made[name] = weight
    install(decoder, made)


def dequantise(decoder: nn.Module) -> None:
    """Give a decoder float weights again, in place: the values that the quantised ones return."""
    named = decoder.named_parameters()
    install(decoder, {n: dequantised(p) for n, p in named if isinstance(p, QuantisedTensor)})


def install(decoder: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put weights in the place of a decoder's own; what was tied stays tied.

    They need no gradient. Layers whose experts are quantised get a kernel that reads only those
    that tokens chose.
    """
    if not weights:
        return
    made: dict[int, nn.Parameter] = {}
    for name, old, own, part, _ in list(owned_parameters(decoder)):
        if name in weights and id(old) not in made:
            made[id(old)] = nn.Parameter(weights[name], requires_grad=False)
        if id(old) in made:
            setattr(part, own, made[id(old)])
    for part in decoder.modules():
        if isinstance(part, MixtureOfExpertsPart):
            part.kernel = ChosenExperts.around(part.kernel, weights_of(part.experts) is not None)


def weights_of(module: nn.Module) -> str | None:
    """Return the format of a module's weights, that of fewest bits if several; None: all float."""
    kinds = {each.kind for each in module.parameters() if isinstance(each, QuantisedTensor)}
    return min(kinds, default=None)  # int4 comes before int8
