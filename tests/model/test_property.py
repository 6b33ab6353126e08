"""What every decoder promises, over random combinations of everything that settings can say.

Settings are drawn by walking through their fields: members of unions, choices and flags are found
in the annotations, so new kinds join by themselves. Numbers are drawn for the names in `NUMBERS`
and otherwise left at their default; what a kind cannot do without stands in `variants/*.yaml`.
"""

from __future__ import annotations

import types
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
import torch
import yaml
from hypothesis import HealthCheck, Phase, given, reject, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from safetensors.torch import load, save

from coterie.foundation.settings import Settings, union
from coterie.generate.cache import FullCacheSettings
from coterie.model import Decoder, DecoderSettings, count
from coterie.model.blocks import BlockSettings
from coterie.model.context import ForwardContext
from coterie.model.experts import ExpertPack

FILES = [
    yaml.safe_load(path.read_text())
    for path in sorted(Path(__file__).with_name("variants").glob("*.yaml"))
]
NEEDS: dict[str, dict[str, Any]] = {k: v for file in FILES for k, v in file["needs"].items()}
VARIANTS = {k: v for file in FILES for k, v in file["variants"].items()}
STRUCTURE = VARIANTS["structure"]["additive"]
# Not on this machine, or with times that a test must not wait for; back ends have tests of theirs.
LEFT_OUT = {"flash", "flex", "measured"}
NUMBERS: dict[str, list[Any]] = {
    "window": [None, 1, 3], "sinks": [0, 2], "kv_heads": [None, 1], "head_dim": [None, 6],
    "stride": [2, 3], "size": [2], "query_rank": [None, 5], "value_dim": [None, 3],
    "fraction": [1.0, 0.5], "theta": [100.0, 1e4], "factor": [2.0], "original_context": [12],
    "logit_factor": [None, 1.5], "std": [0.3], "epsilon": [1e-3],
    "shared_experts": [0, 1], "capacity_factor": [None, 1.1], "expert_dropout": [0.0, 0.1],
    "z_loss": [0.0, 0.1], "scale": [1.0, 2.5], "coefficient": [0.01], "sequence": [0.1],
    "entropy": [0.1], "stochastic_depth": [0.0, 0.2], "rate": [0.1], "dim": [None, 4],
    "depth": [1, 2],
}  # fmt: skip
WIDTH, VOCAB, LENGTH = 16, 23, 11


@st.composite
def fields(draw: Any, settings: type[Settings], fixed: dict[str, Any]) -> dict[str, Any]:
    """Draw the fields of a settings class; most of them stay at their default."""
    values = dict(fixed)
    for name, field in settings.model_fields.items():
        if name in values or name == "kind":
            continue
        strategy = CUSTOM[name] if name in CUSTOM else strategy_of(name, field)
        if strategy is not None and (field.is_required() or draw(st.integers(0, 2)) == 0):
            values[name] = draw(strategy)
    return values


def strategy_of(name: str, field: FieldInfo) -> st.SearchStrategy[Any] | None:
    """Return how to draw a field; None where it is left alone."""
    for extra in field.metadata:
        if isinstance(extra, union):
            return member(extra)
    return of_annotation(name, field.annotation)


def of_annotation(name: str, annotation: Any) -> st.SearchStrategy[Any] | None:
    """Return how to draw values of an annotation; None where nothing is known of it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return next((member(extra) for extra in arguments[1:] if isinstance(extra, union)), None)
    if annotation is bool:
        return st.booleans()
    if annotation is type(None):
        return st.none()
    if origin is Literal:
        return st.sampled_from(arguments)
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return fields(annotation, {})
    if name in NUMBERS:
        return st.sampled_from(NUMBERS[name])
    if origin in (Union, types.UnionType):
        known = [of_annotation(name, each) for each in arguments]
        return st.one_of(known) if all(each is not None for each in known) else None
    return None


def member(one_of: union) -> st.SearchStrategy[dict[str, Any]]:
    """Return how to draw a member of a union with what it needs."""
    kinds = sorted(set(one_of.members) - LEFT_OUT)
    return st.sampled_from(kinds).flatmap(lambda kind: of_kind(kind, one_of.members[kind]))


def of_kind(kind: str, settings: type[Settings]) -> st.SearchStrategy[dict[str, Any]]:
    """Return how to draw the settings of a kind."""
    # Two unions may have a kind of one name, and experts are drawn.
    known = set(settings.model_fields) - {"experts"}
    needs = {name: value for name, value in NEEDS.get(kind, {}).items() if name in known}
    return fields(settings, {"kind": kind} | needs)


def packs(number: int) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Return how to draw so many packs of four experts in all."""
    pack = fields(ExpertPack, {"count": 4 // number})
    return st.lists(pack, min_size=number, max_size=number)


CUSTOM: dict[str, st.SearchStrategy[Any]] = {
    "experts": st.integers(1, 2).flatmap(packs),
    "additive": st.just(STRUCTURE),
}


@st.composite
def decoders(draw: Any) -> dict[str, Any]:
    """Draw a decoder of two layers, the second of which may differ from the first."""
    values: dict[str, Any] = {
        "layers": 2, "width": WIDTH, "context": 12, "vocab_size": VOCAB, "opening": [],
        "initial": {"std": 0.2, "outputs": "plain"}, "blocks": {}, "pattern": [],
    }  # fmt: skip
    for name in ("attention", "feedforward", "position"):
        values[name] = draw(strategy_of(name, DecoderSettings.model_fields[name]))
    if draw(st.booleans()):
        values["blocks"] = {"plain": {}, "other": draw(fields(BlockSettings, {}))}
        values["pattern"] = ["plain", "other"]
    return draw(fields(DecoderSettings, values))


def build(model: DecoderSettings) -> Decoder:
    """Return a float64 decoder whose biases and norms do not hide behind zeros and ones."""
    generator = torch.Generator().manual_seed(0)
    decoder = model.build(generator)
    with torch.no_grad():
        for parameter in decoder.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return decoder.double().eval()


def check_counts(model: DecoderSettings, decoder: Decoder) -> None:
    counts = count(model)
    assert counts.parameters == sum(parameter.numel() for parameter in decoder.parameters())
    assert 0 < counts.active_parameters <= counts.parameters + decoder.embedding.weight.numel()
    assert counts.training_flops_per_token() >= 3 * counts.flops_per_token() > 0
    assert counts.decoding_flops() > 0
    assert counts.cache_bytes_per_token > 0


def check_reading(model: DecoderSettings, decoder: Decoder, tokens: torch.Tensor) -> None:
    """No token sees the future, and a cache changes nothing."""
    with torch.no_grad():
        logits = decoder(tokens).logits
        changed = tokens.clone()
        changed[:, 6] = (changed[:, 6] + 7) % VOCAB
        after = decoder(changed).logits
        torch.testing.assert_close(after[:, :6], logits[:, :6], rtol=0, atol=1e-11)
        assert (after[:, 6] - logits[:, 6]).abs().max() > 1e-9
        cache = FullCacheSettings().build([plan.attention.cache_spec() for plan in model.plans()])
        pieces = [
            decoder(piece, context=ForwardContext(cache=cache)).logits
            for piece in tokens.split((5, 1, 1, 4), dim=1)
        ]
    torch.testing.assert_close(torch.cat(pieces, dim=1), logits, rtol=0, atol=1e-11)


def check_gradients(decoder: Decoder, tokens: torch.Tensor) -> None:
    decoder.train()
    output = decoder(tokens, tokens.roll(-1, 1))
    terms = [each.auxiliary + each.z + each.entropy_term for each in output.router_stats]
    terms += [each.sum() for each in output.mtp]
    terms += [each.square().sum() for each in (output.values, output.embedding) if each is not None]
    (output.losses.sum() + sum(terms)).backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    decoder.eval()


def check_saving(model: DecoderSettings, decoder: Decoder, tokens: torch.Tensor) -> None:
    again = DecoderSettings.model_validate(model.model_dump(mode="json"))
    assert again == model
    other = again.build(torch.Generator().manual_seed(1)).double().eval()
    other.load_state_dict(load(save(decoder.state_dict())))
    with torch.no_grad():
        assert torch.equal(other(tokens).logits, decoder(tokens).logits)


@pytest.mark.parametrize("number", [8, pytest.param(60, marks=pytest.mark.exhaustive)])
def test_any_combination_keeps_every_promise(number):
    seen: Counter[str] = Counter()

    @settings(max_examples=number, deadline=None, derandomize=True, database=None,
              suppress_health_check=list(HealthCheck), phases=[Phase.generate])  # fmt: skip
    @given(decoders())
    def each(values: dict[str, Any]) -> None:
        try:
            model = DecoderSettings.model_validate(values)
        except ValidationError as error:
            seen["refused"] += 1
            reasons.append(str(error.errors()[0]["msg"]))
            reject()
        seen["kept"] += 1
        decoder = build(model)
        tokens = torch.randint(VOCAB, (2, LENGTH), generator=torch.Generator().manual_seed(2))
        check_counts(model, decoder)
        check_reading(model, decoder, tokens)
        check_gradients(decoder, tokens)
        check_saving(model, decoder, tokens)

    reasons: list[str] = []
    each()
    assert seen["refused"] <= seen["kept"], f"too many combinations are refused: {reasons}"
