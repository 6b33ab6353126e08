"""Which architecture of GGUF can express a model exactly, and what has no home in the closest one.

What an architecture says of the model is read back, as an import would, and compared with it layer
by layer, as exports to Hugging Face do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from coterie.exchange.gguf.families import FAMILIES, Family
from coterie.exchange.gguf.metadata import Metadata
from coterie.exchange.huggingface.fit import differences
from coterie.exchange.huggingface.plain import Plain, plain
from coterie.exchange.imported import ExchangeError
from coterie.model import Decoder, DecoderSettings, selection_biases
from coterie.model.position import RotaryPosition
from coterie.model.position.scaling import NoScaling, NTKScaling


@dataclass(frozen=True)
class Fit:
    """An architecture that expresses a model.

    Attributes:
        family: the architecture.
        values: what the file says of the model, by full name.
        extras: tensors that hold settings.
        settings: what an import of it builds.
    """

    family: Family
    values: dict[str, Any]
    extras: dict[str, Tensor]
    settings: DecoderSettings


def fitting(decoder: Decoder) -> Fit:
    """Return the simplest architecture that expresses a decoder exactly.

    Raises:
        ExchangeError: there is none; the message names the closest and what has no home there.
    """
    layers = range(decoder.settings.layers)
    biases = {layer: bool(bias.any()) for layer, bias in selection_biases(decoder).items()}
    settings = _with_plain_base(decoder.settings)
    wanted = plain(settings, [biases.get(layer, False) for layer in layers])
    refusals: list[tuple[int, int, str, list[str]]] = []
    for family in FAMILIES.values():
        fit, reasons = _try(family, wanted)
        if fit is not None and not reasons:
            return fit
        refusals.append((_strangeness(fit, wanted), len(reasons), family.title, reasons))
    *_, closest, reasons = min(refusals)
    raise ExchangeError(
        f"No GGUF architecture that is written here holds this model exactly. The closest is "
        f"{closest}, which has no home for:\n  " + "\n  ".join(reasons),
        hint="Nothing was written. docs/gguf.md lists what each architecture can hold.",
    )


def _strangeness(fit: Fit | None, wanted: Plain) -> int:
    """Return how many of a model's main parts an architecture has another kind of."""
    if fit is None:
        return 4
    pairs = (
        (fit.settings.plans()[-1].attention, wanted.plans[-1].attention),
        (fit.settings.position, wanted.settings.position),
        (fit.settings.norm, wanted.settings.norm),
    )
    return sum(offered.kind != ours.kind for offered, ours in pairs)


def _with_plain_base(settings: DecoderSettings) -> DecoderSettings:
    """Return settings in which NTK-aware scaling is what it amounts to: another base."""
    position = settings.position
    if not isinstance(position, RotaryPosition) or not isinstance(position.scaling, NTKScaling):
        return settings
    channels = position.turned(settings.plans()[0].attention.channels(settings.width))
    base = position.scaling.base(position.theta, channels)
    plain_position = position.model_copy(update={"theta": base, "scaling": NoScaling()})
    return settings.model_copy(update={"position": plain_position})


def _try(family: Family, wanted: Plain) -> tuple[Fit | None, list[str]]:
    """Return an architecture's way to say a model, if it has one, and what that leaves out."""
    reasons = family.limits(wanted)
    extras = family.extras(wanted)
    written = {f"{family.name}.{name}": value for name, value in family.writes(wanted).items()}
    values = {"general.architecture": family.name, **written}
    shapes = {**_present(wanted), **{name: tuple(each.shape) for name, each in extras.items()}}
    meta = Metadata(values, shapes, extras.__getitem__)
    try:
        settings = DecoderSettings.model_validate(family.reads(meta))
    except ValidationError as error:
        return None, [*reasons, *(each["msg"] for each in error.errors())]
    reasons += meta.problems
    reasons += [each for each in differences(wanted, plain(settings)) if each not in reasons]
    return Fit(family, values, extras, settings), reasons


def _present(model: Plain) -> dict[str, tuple[int, ...]]:
    """Return those tensors from whose presence an import concludes something."""
    attention, first = model.grouped, model.plans[0].feedforward
    names = []
    if not model.settings.head.tied:
        names.append("output.weight")
    if attention.bias:
        names.append("blk.0.attn_q.bias")
    if attention.bias is True:
        names.append("blk.0.attn_output.bias")
    if attention.query_key_norm is not None:
        names.append("blk.0.attn_q_norm.weight")
    if getattr(getattr(first, "body", None), "bias", False):
        names.append("blk.0.ffn_gate.bias")
    if any(model.biased):
        names += [f"blk.{layer}.exp_probs_b.bias" for layer in range(len(model.plans))]
    embedding = {"token_embd.weight": (model.vocab_size, model.settings.width)}
    return {**dict.fromkeys(names, (1,)), **embedding}
