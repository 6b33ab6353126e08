"""Which family can express a model exactly, and what has no home in those that cannot.

What a family writes of the model is read back, as an import would, and both are compared layer by
layer. Whatever differs is a reason against the family, so a part that no family knows of can never
be dropped. What acts in training alone is not compared; what a family can only express with a
bias, a scale or wider layers is rewritten without changing the function (see `reparametrise`).
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError
from torch import Tensor

from coterie.exchange.core.canonical import Canonical, canonical
from coterie.exchange.core.family import Family
from coterie.exchange.imported import ExchangeError, reasons_of
from coterie.model import Decoder, DecoderSettings, selection_biases
from coterie.model.position import LearnedPosition

F = TypeVar("F", bound=Family[Any])

_TRAINING = frozenset({  # and how things are computed
    "absorb", "stochastic_depth",
    "backend", "balance", "capacity_factor", "dropout", "expert_dropout", "initial", "kernel",
    "noise", "std", "z_loss",
})  # fmt: skip
_RESOLVED = frozenset(
    {"block_layout", "attention", "blocks", "feedforward", "layers", "opening", "pattern"}
)
_FILLED = frozenset(["bias", "scale"])  # where ours is absent, a neutral one is written
_PHRASES = {
    "embedding.kind": "its {} embedding",
    "embedding_norm": "the normalisation of its embedding",
    "position.kind": "its {} positions",
    "position.context": "its context of {}",
    "position.fraction": "rotary positions on {} of each head",
    "position.scaling.kind": "the {} scaling of its positions",
    "position.scaling.logit_factor": "the factor {} of its positions on all logits",
    "additive": "its additive embeddings",
    "block_layout.kind": "its {} layout of attention and feed-forward part",
    "mtp": "its MTP modules",
    "mtp.depth": "its {} MTP modules",
    "mtp.normalised": "MTP modules that read states before the last norm (mtp.normalised={})",
    "ngram": "its counted n-grams",
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
    "feedforward.mlp.kind": "its {} MLPs",
    "feedforward.mlp.bias": "the biases of its MLPs",
    "feedforward.mlp.activation": "the {} activation of its MLPs",
    "feedforward.experts": "its experts of unequal kinds",
    "feedforward.experts.0.mlp.kind": "its {} experts",
    "feedforward.experts.0.mlp.bias": "the biases of its experts",
    "feedforward.experts.0.mlp.activation": "the {} activation of its experts",
    "feedforward.shared_mlp.activation": "the {} activation of its shared experts",
    "feedforward.shared_experts": "its shared experts",
    "feedforward.shared_gate": "the gate of its shared experts",
    "feedforward.router.score.kind": "its {} scores of experts",
    "feedforward.router.select.kind": "its {} selection of experts",
    "feedforward.router.scale": "the factor {} on its routed experts",
    "feedforward.selection_bias": "the selection bias that balances its experts",
}


@dataclass(frozen=True)
class Match(Generic[F]):
    """A family that expresses a model.

    Attributes:
        family: the family.
        values: what a file of it says of the model.
        extras: tensors of the file that hold settings.
        settings: what an import of the file builds.
    """

    family: F
    values: dict[str, Any]
    extras: Mapping[str, Tensor]
    settings: DecoderSettings


def match(decoder: Decoder, families: Iterable[F], *, format: str, page: str) -> Match[F]:
    """Return the first family that expresses a decoder exactly.

    Args:
        families: the simplest first.
        page: the page of the documentation that says what each family can hold.

    Raises:
        ExchangeError: there is none; the message names the closest and what has no home there.
    """
    layers = range(decoder.settings.layers + len(decoder.mtp))
    biases = {layer: bool(bias.any()) for layer, bias in selection_biases(decoder).items()}
    wanted = canonical(decoder.settings, [biases.get(layer, False) for layer in layers])
    closest: tuple[tuple[int, int], str, list[str]] | None = None
    for family in families:
        found, reasons = _try(family, wanted)
        if found is not None and not reasons:
            return found
        distance = (_foreign_parts(wanted, found), len(reasons))
        if closest is None or distance < closest[0]:
            closest = distance, family.title, reasons
    assert closest is not None
    raise ExchangeError(
        f"No {format} architecture known here expresses this model exactly. The closest is "
        f"{closest[1]}, which has no home for:\n  " + "\n  ".join(closest[2]),
        hint=f"Nothing was written. {page} lists what each architecture can hold.",
    )


def _try(family: F, wanted: Canonical) -> tuple[Match[F] | None, list[str]]:
    """Return a family's way to express a model, if it has one, and what that leaves out."""
    reasons = family.limits(wanted)
    written = family.write(wanted)
    try:
        settings = DecoderSettings.model_validate(family.reads(written.reader))
    except ValidationError as error:
        return None, [*reasons, *reasons_of(error)]
    reasons += written.reader.problems
    reasons += [each for each in _differences(wanted, canonical(settings)) if each not in reasons]
    return Match(family, written.values, written.extras, settings), reasons


def _foreign_parts(wanted: Canonical, found: Match[Any] | None) -> int:
    """Return how many parts of a model are of another kind in a family's way."""
    offered = found.settings.plans() if found else ()
    parts = 2 * len(wanted.plans) - sum(
        (ours.attention.kind == theirs.attention.kind)
        + (ours.feedforward.kind == theirs.feedforward.kind)
        for ours, theirs in zip(wanted.plans, offered, strict=False)
    )
    if found is not None:
        ours, theirs = wanted.settings, found.settings
        parts += (ours.norm.kind != theirs.norm.kind) + (ours.position.kind != theirs.position.kind)
    return parts


def _differences(wanted: Canonical, offered: Canonical) -> list[str]:
    """Return a phrase for each thing of a model that another, offered in its place, lacks."""
    found: list[str] = []
    if wanted.settings.layers != offered.settings.layers:
        return [f"its {wanted.settings.layers} layers"]
    pairs = [(_top(wanted), _top(offered))]
    both = min(len(wanted.plans), len(offered.plans))
    pairs += [(_layer(wanted, i), _layer(offered, i)) for i in range(both)]
    for ours, theirs in pairs:
        for path, value in _lacking(ours, theirs):
            phrase = _PHRASES.get(path, f"{path.replace('_', ' ')} = {{}}").format(value)
            if phrase not in found:
                found.append(phrase)
    return found


def _top(model: Canonical) -> dict[str, Any]:
    """Return what holds for the whole model, as plain values."""
    values = model.settings.model_dump() | {"position": model.position.model_dump()}
    if model.settings.mtp is not None:  # its blocks are compared as layers are
        values["mtp"] = {name: values["mtp"][name] for name in ("depth", "normalised")}
    context = values.pop("context")
    if isinstance(model.position, LearnedPosition):  # others compute any number of positions
        values["position"]["context"] = context
    return {name: value for name, value in values.items() if name not in _RESOLVED}


def _layer(model: Canonical, layer: int) -> dict[str, Any]:
    plan = model.plans[layer]
    values = {each.name: _dump(getattr(plan, each.name)) for each in fields(plan)}
    values["feedforward"]["selection_bias"] = model.biased[layer]
    return values


def _dump(value: Any) -> Any:
    return value.model_dump() if isinstance(value, BaseModel) else value


def _lacking(ours: Any, theirs: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield path and our value where two trees of values differ in what they compute."""
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
    elif ours != theirs and not _reparametrisable(path, ours, theirs):
        yield path, ours


def _reparametrisable(path: str, ours: Any, theirs: Any) -> bool:
    """Whether a difference vanishes by writing neutral values or more of them."""
    name = path.rpartition(".")[2]
    if name in _FILLED or name == "selection_bias":
        return not ours or (ours == "qkv" and theirs is True)
    if path == "position.layout":
        return True
    is_hidden = name == "width" and path.rpartition(".")[0].endswith("mlp")
    return is_hidden and ours is not None and theirs is not None and ours <= theirs
