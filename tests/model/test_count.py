"""Counting by formula against the model itself: parameters, operations, decoding and training.

Operations are measured by torch's own counter with the dense back end, which computes every pair of
positions with plain products (it does not see the fused kernels). Differences it may have: pairs
that the mask hides, the experts that tokens really went to where these are unequal, what is done
once per text (a pooled vector) and the account of routing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from coterie.foundation.layers import load_settings
from coterie.generate.cache import FullCacheSettings
from coterie.model import Decoder, DecoderSettings, Part, count
from coterie.model.attention.mask_settings import Mask, MaskSettings
from coterie.model.context import ForwardContext
from coterie.model.count import count_tree
from coterie.presets import preset_layers, preset_names
from coterie.train.settings import RunSettings

VARIANTS = {
    name: changes
    for path in sorted(Path(__file__).with_name("variants").glob("*.yaml"))
    for name, changes in yaml.safe_load(path.read_text())["variants"].items()
}
# Latents that are read without unfolding them, and balance per sequence with products of its own.
UNLIKE = {"mla-absorbed", "mla-window-absorbed", "balance-sequence", "balance-bias-sequence"}


def tiny(name: str) -> DecoderSettings:
    """Return a preset's model at its tiny scale."""
    model = load_settings(RunSettings, preset_layers(name, "tiny")).settings.model
    changed: dict[str, Any] = {"vocab_size": 60}
    tags = sorted({tag for each in model.additive for tag in each.tags().values()})
    ids = {tag: index for index, tag in enumerate(tags)}
    changed["additive"] = tuple(each.with_ids(ids) for each in model.additive)
    return model.model_copy(update=changed)


def plainly(model: DecoderSettings) -> DecoderSettings:
    """Return the settings with operations that the counter sees: dense pairs, experts in a loop."""

    def changed(values: Any) -> Any:
        if isinstance(values, list | tuple):
            return [changed(each) for each in values]
        if not isinstance(values, dict):
            return values
        replaced = {"backend": {"kind": "dense"}, "kernel": {"kind": "loop"}}
        return {key: replaced.get(key, changed(value)) for key, value in values.items()}

    return DecoderSettings.model_validate(changed(model.model_dump()))


def measured(decoder: Decoder, *inputs: torch.Tensor, **options: Any) -> tuple[int, Any]:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        output = decoder(*inputs, **options)
    return counter.get_total_flops(), output


def hidden_pairs(model: DecoderSettings, tokens: int) -> float:
    """Return the operations that dense products spend on pairs the mask hides."""
    total = 0.0
    for plan in model.plans():
        # Latent vectors know no masks; texts within one chunk are read as without them.
        mask = plan.attention.mask() if isinstance(plan.attention, MaskSettings) else Mask()
        seen = mask.mean_visible(tokens)
        parts = plan.attention.counts(model.width, tokens).walk()
        visible = sum(part.flops for _, part in parts if part.name == "products")
        total += visible * (tokens / seen - 1)
    return total * tokens


def misplaced(model: DecoderSettings, decoder: Decoder, output: Any) -> float:
    """Return what the experts that tokens went to cost beyond an even share of all."""
    total = 0.0
    for account in output.router_stats:
        layer = model.plans()[account.layer].feedforward
        parts = {part.name: part for part in layer.counts(model.width).parts}
        share = layer.experts_per_token / layer.num_experts
        tokens, start = output.logits.shape[1], 0
        for number, pack in enumerate(layer.experts):
            mean = parts[f"experts.{number}"].flops
            went = int(account.load[start : start + pack.count].sum())
            total += went * mean / share / pack.count - tokens * mean
            start += pack.count
    return total


def once_per_text(model: DecoderSettings) -> float:
    return 2.0 * model.width * (model.pooled.dim or 0) if model.pooled else 0.0


def check_forward(model: DecoderSettings, tokens: int) -> None:
    model = plainly(model)
    decoder = model.build().eval()
    flops, output = measured(decoder, torch.randint(1, model.vocab_size, (1, tokens)))
    expected = count(model).flops_per_token(tokens) * tokens
    expected += hidden_pairs(model, tokens) + misplaced(model, decoder, output)
    assert flops == pytest.approx(expected + once_per_text(model), abs=1e-6)


@pytest.mark.parametrize("tokens", [1, 7])
@pytest.mark.parametrize("name", preset_names())
def test_presets_cost_what_is_counted(name, tokens):
    check_forward(tiny(name), tokens)


@pytest.mark.parametrize("name", sorted(set(VARIANTS) - UNLIKE))
def test_variants_cost_what_is_counted(name, make_settings):
    check_forward(make_settings(**VARIANTS[name]), 4)


@pytest.mark.parametrize("name", preset_names())
def test_presets_count_their_parameters(name):
    model = tiny(name)
    counts, decoder = count(model), model.build()
    assert counts.parameters == sum(parameter.numel() for parameter in decoder.parameters())
    unequal = any(len(getattr(plan.feedforward, "experts", ())) > 1 for plan in model.plans())
    rounding = 8 if unequal else 0  # shares of several packs need not be whole numbers
    assert abs(counts.active_parameters - active(model, decoder)) <= rounding
    top = [row for row in counts.tree if row.depth == 1]
    assert sum(row.parameters for row in top) == counts.parameters
    assert sum(row.active_parameters for row in top) == counts.active_parameters
    assert sum(row.flops for row in top) == pytest.approx(counts.flops_per_token(), rel=1e-12)
    assert sum(row.cache_bytes for row in top) == counts.cache_bytes_per_token


def active(model: DecoderSettings, decoder: nn.Module) -> int:
    """Sum what the built model multiplies to write: no look-ups, k of E experts, the head."""
    total = 0.0
    for path, module in decoder.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            assert isinstance(module, Part)
            if module.roles[name] in ("embedding", "table") or ".noise" in path:
                continue  # looked up, or of training alone
            share = 1.0
            if ".experts." in path:
                layer = model.plans()[int(path.split(".")[1])].feedforward
                share = layer.experts_per_token / layer.num_experts
            total += parameter.numel() * share
    if model.head.tied:
        total += decoder.embedding.weight.numel()
    return round(total)


@pytest.mark.parametrize("name", [name for name in preset_names() if name != "s15era"])
def test_the_token_at_a_position_costs_what_decoding_it_does(name):
    # s15era is left out: latents are read without unfolding them, which costs otherwise.
    model = plainly(tiny(name))
    decoder = model.build().eval()
    cache = FullCacheSettings().build([plan.attention.cache_spec() for plan in model.plans()])
    tokens = torch.randint(1, 60, (1, 20))
    measured(decoder, tokens[:, :13], context=ForwardContext(cache=cache))
    differences = []
    for position in range(14, 21):
        flops, output = measured(
            decoder, tokens[:, position - 1 : position], context=ForwardContext(cache=cache)
        )
        expected = count(model).decoding_flops(position) + misplaced(model, decoder, output)
        differences.append(flops - expected)
    if name == "mymoe":  # a chunk is summed up by its last token, and counted with the next one
        differences = [differences[2] + differences[3], *differences[:2], *differences[4:]]
    assert differences == pytest.approx([0.0] * len(differences), abs=1e-3)


@pytest.mark.parametrize("name", ["window", "mtp", "mtp-moe-tied"])
def test_training_costs_three_forward_passes_and_those_of_mtp(name, make_settings):
    model = plainly(make_settings(**VARIANTS[name]))
    decoder, tokens = model.build().train(), torch.randint(23, (1, 12))
    flops, _ = measured(decoder, tokens, tokens.roll(-1, 1))
    hidden, width = hidden_pairs(model, 12), 16
    for depth in range(1, model.mtp.depth + 1 if model.mtp else 1):
        pairs = (12 - depth) * (12 - depth - 1) / 2  # of a block that reads so many tokens fewer
        hidden += 4 * width * pairs
    counts = count(model)
    assert flops == pytest.approx(counts.training_flops_per_token(12) * 12 / 3 + hidden)
    further = counts.training_flops_per_token(12) - 3 * counts.flops_per_token(12)
    assert (further > 1e-6) == (model.mtp is not None)


def test_a_step_backwards_costs_twice_the_step_forwards(make_settings):
    model = plainly(make_settings(position="none"))
    decoder, tokens = model.build().train(), torch.randint(23, (1, 12))
    with FlopCounterMode(display=False) as counter:
        decoder(tokens, tokens.roll(-1, 1)).losses.sum().backward()
    hidden = 3 * hidden_pairs(model, 12)
    expected = count(model).training_flops_per_token(12) * 12 + hidden
    assert counter.get_total_flops() == pytest.approx(expected)


def test_flops_grow_with_context_by_attention_alone(make_settings):
    counts = count(make_settings())
    layers, width = 2, 16
    growth = counts.flops_per_token(101) - counts.flops_per_token(1)
    assert growth == pytest.approx(layers * 4 * width * 50)
    assert counts.decoding_flops(101) - counts.decoding_flops(1) == pytest.approx(
        layers * 4 * width * 100
    )
    windowed = count(make_settings(attention={"kind": "grouped", "heads": 2, "window": 4}))
    assert windowed.flops_per_token(10_000) < windowed.flops_per_token(4) * 1.5
    assert windowed.decoding_flops(10_000) == pytest.approx(windowed.decoding_flops(4))


def test_equal_neighbours_are_joined_in_the_tree(make_settings):
    moe = {"kind": "moe", "experts": [{"count": 2}], "experts_per_token": 1}
    tree = count_tree(make_settings(
        layers=7, blocks={"moe": {"feedforward": moe}, "dense": {}}, opening=["dense", "dense"],
        pattern=["moe", "moe", "dense"],
    ))  # fmt: skip
    names = [part.name for part in tree.parts if part.name.startswith("block")]
    assert names == ["blocks 0–1", "blocks 2–3", "block 4", "blocks 5–6"]
