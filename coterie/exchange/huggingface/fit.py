"""Which family can express a model exactly, and what has no home in those that cannot.

A family's configuration of the model is read back, as an import would, and both are compared layer
by layer. Whatever differs is a reason against the family, so a part that no family knows of can
never be dropped. What acts in training alone is not compared; what a family can only say with a
bias, a scale or wider bodies is made so without changing the function (see `lift`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from pydantic import BaseModel, ValidationError

from coterie.exchange.huggingface.config import Config
from coterie.exchange.huggingface.families import FAMILIES, Family
from coterie.exchange.huggingface.plain import Plain, plain
from coterie.exchange.imported import ExchangeError, reasons_of
from coterie.model import Decoder, DecoderSettings, selection_biases
from coterie.model.position import LearnedPosition

_TRAINING = frozenset({  # and how things are computed
    "absorb", "stochastic_depth",
    "backend", "balance", "capacity", "compute", "dropout", "expert_dropout", "initial", "noise",
    "std", "z_loss",
})  # fmt: skip
_RESOLVED = frozenset(
    {"block_layout", "attention", "blocks", "feedforward", "layers", "opening", "pattern"}
)
_FILLED = frozenset(["bias", "scale"])  # absent here, a neutral one is written
_PHRASES = {
    "embedding.kind": "its {} embedding",
    "embedding_norm": "the normalisation of its embedding",
    "position.kind": "its {} positions",
    "position.context": "its context of {}",
    "position.fraction": "rotary positions on {} of each head",
    "position.scaling.kind": "the {} scaling of its positions",
    "position.scaling.logit_factor": "the factor {} of its positions on all logits",
    "structure": "its embedding of structure",
    "block_layout.kind": "its {} layout of attention and feed-forward part",
    "ahead": "its heads for further tokens",
    "value": "its value head",
    "pooled": "its pooled head",
    "norm.kind": "its {} normalisation",
    "head.bias": "the bias of its head",
    "attention.kind": "its {} attention",
    "attention.window": "its sliding window of {}",
    "attention.sinks": "its attention sinks",
    "attention.bias": "the biases of its attention",
    "attention.query_key_norm_over": "the normalisation of its queries and keys over {}",
    "attention.sparse": "the sparse pattern of its attention",
    "attention.rotary_key": "a rotary key {}",
    "attention.latent_norm": "the lack of normalisation of its latents",
    "attention.query_key_norm.kind": "the {} normalisation of its queries and keys",
    "attention.query_key_norm": "the normalisation of its queries and keys",
    "feedforward.kind": "its {} feed-forward layers",
    "feedforward.body.kind": "its {} bodies",
    "feedforward.body.bias": "the biases of its bodies",
    "feedforward.experts": "its experts of unequal kinds",
    "feedforward.experts.0.body.kind": "its {} experts",
    "feedforward.experts.0.body.bias": "the biases of its experts",
    "feedforward.shared_experts": "its shared experts",
    "feedforward.shared_gate": "the gate of its shared experts",
    "feedforward.router.score.kind": "its {} scores of experts",
    "feedforward.router.select.kind": "its {} selection of experts",
    "feedforward.router.scale": "the factor {} on its routed experts",
    "feedforward.selection_bias": "the selection bias that balances its experts",
}


@dataclass(frozen=True)
class Fit:
    """A family that expresses a model.

    Attributes:
        family: the family.
        config: what it writes, without what every config.json holds.
        settings: what an import of it builds.
    """

    family: Family
    config: dict[str, Any]
    settings: DecoderSettings


def fitting(decoder: Decoder) -> Fit:
    """Return the simplest family that expresses a decoder exactly.

    Raises:
        ExchangeError: there is none; the message names the closest and what has no home there.
    """
    layers = range(decoder.settings.layers)
    biases = {layer: bool(bias.any()) for layer, bias in selection_biases(decoder).items()}
    wanted = plain(decoder.settings, [biases.get(layer, False) for layer in layers])
    closest: tuple[tuple[int, int], str, list[str]] | None = None
    for family in FAMILIES.values():
        fit, reasons = try_family(family, wanted)
        if fit is not None and not reasons:
            return fit
        distance = (_foreign_layers(wanted, fit), len(reasons))
        if closest is None or distance < closest[0]:
            closest = distance, family.title, reasons
    assert closest is not None
    raise ExchangeError(
        f"No Hugging Face architecture that is written here holds this model exactly. The closest "
        f"is {closest[1]}, which has no home for:\n  " + "\n  ".join(closest[2]),
        hint="Nothing was written. docs/exchange.md lists what each architecture can hold.",
    )


def _foreign_layers(wanted: Plain, fit: Fit | None) -> int:
    """Return how many parts of layers are of another kind altogether in a family's way."""
    offered = fit.settings.plans() if fit else ()
    return 2 * len(wanted.plans) - sum(
        (ours.attention.kind == theirs.attention.kind)
        + (ours.feedforward.kind == theirs.feedforward.kind)
        for ours, theirs in zip(wanted.plans, offered, strict=False)
    )


def try_family(family: Family, wanted: Plain) -> tuple[Fit | None, list[str]]:
    """Return a family's way to say a model, if it has one, and what that way leaves out."""
    reasons = family.limits(wanted)
    written = family.writes(wanted)
    config = Config(written, family.defaults)
    values = family.reads(config)
    try:
        settings = DecoderSettings.model_validate(values)
    except ValidationError as error:
        return None, [*reasons, *reasons_of(error)]
    reasons += config.problems
    reasons += [each for each in differences(wanted, plain(settings)) if each not in reasons]
    return Fit(family, written, settings), reasons


def differences(wanted: Plain, offered: Plain) -> list[str]:
    """Return a phrase for each thing of a model that another, offered in its place, lacks."""
    found: list[str] = []
    if len(wanted.plans) != len(offered.plans):
        return [f"its {len(wanted.plans)} layers"]
    pairs = [(_top(wanted), _top(offered))]
    pairs += [(_layer(wanted, i), _layer(offered, i)) for i in range(len(wanted.plans))]
    for ours, theirs in pairs:
        for path, value in _lacking(ours, theirs):
            phrase = _PHRASES.get(path, f"{path.replace('_', ' ')} = {{}}").format(value)
            if phrase not in found:
                found.append(phrase)
    return found


def _top(model: Plain) -> dict[str, Any]:
    """Return what holds for the whole model, as plain values."""
    values = model.settings.model_dump() | {"position": model.position.model_dump()}
    context = values.pop("context")
    if isinstance(model.position, LearnedPosition):  # others compute any number of positions
        values["position"]["context"] = context
    return {name: value for name, value in values.items() if name not in _RESOLVED}


def _layer(model: Plain, layer: int) -> dict[str, Any]:
    """Return what a layer computes, as plain values."""
    plan = model.plans[layer]
    values = {each.name: _dump(getattr(plan, each.name)) for each in fields(plan)}
    values["feedforward"]["selection_bias"] = model.biased[layer]
    return values


def _dump(value: Any) -> Any:
    return value.model_dump() if isinstance(value, BaseModel) else value


def _lacking(ours: Any, theirs: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield where two trees of values differ in a way that changes the function."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        if ours.get("kind") != theirs.get("kind"):
            yield f"{path}.kind", ours.get("kind")
            return
        for name in {**ours, **theirs}:
            if name not in _TRAINING:
                inner = f"{path}.{name}" if path else name
                yield from _lacking(ours.get(name), theirs.get(name), inner)
    elif isinstance(ours, tuple | list) and isinstance(theirs, tuple | list):
        if len(ours) != len(theirs):
            yield path, ours
            return
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from _lacking(one, other, f"{path}.{number}")
    elif isinstance(ours, float) and isinstance(theirs, float):
        if not math.isclose(ours, theirs, rel_tol=1e-12):  # rounded on the way through logarithms
            yield path, ours
    elif ours != theirs and not _can_be_made(path, ours, theirs):
        yield path, ours


def _can_be_made(path: str, ours: Any, theirs: Any) -> bool:
    """Whether a difference goes away by writing neutral values or more of them."""
    name = path.rpartition(".")[2]
    if name in _FILLED or name == "selection_bias":
        return not ours or (ours == "qkv" and theirs is True)
    if path == "position.layout":
        return True
    is_body = name == "width" and path.rpartition(".")[0].endswith(("body", "shared_body"))
    return is_body and ours is not None and theirs is not None and ours <= theirs
