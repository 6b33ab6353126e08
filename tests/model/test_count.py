"""Counting by formula against the model itself, over random combinations of parts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from coterie.model import DecoderSettings, Part, count
from coterie.model.attention.products import visible
from coterie.model.count import mean_visible
from coterie.model.summary import count_tree

BODIES = st.builds(
    lambda kind, width, bias: {"kind": kind, "width": width, "bias": bias},
    st.sampled_from(["swiglu", "geglu", "gelu", "squared_relu"]),
    st.sampled_from([None, 4, 12]),
    st.booleans(),
)
NORMS = st.sampled_from(["rms", "layer", {"kind": "rms", "scale": False},
                         {"kind": "layer", "bias": False}])  # fmt: skip
ATTENTIONS = st.builds(
    lambda heads, shared, head_dim, window, bias, norm: {
        "kind": "grouped", "heads": heads, "kv_heads": shared and max(heads // shared, 1),
        "head_dim": head_dim, "window": window, "bias": bias, "query_key_norm": norm,
    },
    st.sampled_from([1, 2, 4]), st.sampled_from([None, 1, 2, 4]), st.sampled_from([None, 2, 6]),
    st.sampled_from([None, 1, 3]), st.booleans(), st.one_of(st.none(), NORMS),
)  # fmt: skip
PACKS = st.builds(lambda body, number: {"body": body, "count": number}, BODIES, st.integers(2, 4))
MIXTURES = st.builds(
    lambda packs, per_token, shared, score, balance: {
        "kind": "moe", "experts": packs, "experts_per_token": per_token, "shared_experts": shared,
        "router": {"score": score}, "balance": balance, "compute": "loop",
    },
    st.lists(PACKS, min_size=1, max_size=2), st.integers(1, 2), st.integers(0, 2),
    st.sampled_from(["softmax", "sigmoid"]), st.sampled_from(["none", "bias", "auxiliary"]),
)  # fmt: skip
FEEDFORWARDS = st.one_of(MIXTURES, st.builds(lambda body: {"kind": "dense", "body": body}, BODIES))
EMBEDDINGS = st.sampled_from([
    "full", {"kind": "factorised", "rank": 3}, {"kind": "ngram", "rows": 9, "dim": 4},
    {"kind": "ngram", "orders": [1, 3], "rows": 5, "combine": "add"},
])  # fmt: skip
DECODERS = st.fixed_dictionaries({
    "layers": st.integers(1, 4), "width": st.just(8), "context": st.just(6),
    "vocab_size": st.just(13), "embedding": EMBEDDINGS, "embedding_norm": st.booleans(),
    "position": st.sampled_from(["rotary", "learned", "none"]), "norm": NORMS,
    "attention": ATTENTIONS, "feedforward": FEEDFORWARDS,
    "blocks": st.fixed_dictionaries({"a": st.fixed_dictionaries({"attention": ATTENTIONS}),
                                     "b": st.fixed_dictionaries({"feedforward": FEEDFORWARDS})}),
    "opening": st.just(["a"]), "pattern": st.sampled_from([["b"], ["a", "b"]]),
    "head": st.fixed_dictionaries({"tied": st.booleans(), "bias": st.booleans()}),
})  # fmt: skip


def check(values) -> None:
    model = DecoderSettings.model_validate(values)
    counts, decoder = count(model), model.build()
    assert counts.parameters == sum(parameter.numel() for parameter in decoder.parameters())
    one_kind = all(len(getattr(plan.feedforward, "experts", ())) < 2 for plan in model.plans())
    rounding = 0 if one_kind else 8  # shares of several packs need not be whole numbers
    assert abs(counts.active_parameters - active(model, decoder)) <= rounding
    tokens = torch.randint(13, (1, 1))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        decoder(tokens)
    if one_kind:  # with several, the flops depend on who was selected
        # torch's counter leaves out the CPU's attention kernel, which the next test counts.
        attention = sum(p.flops for _, p in count_tree(model, 1).walk() if p.name == "products")
        assert counter.get_total_flops() == counts.flops_per_token(1) - attention
    top = [row for row in counts.tree if row.depth == 1]
    assert sum(row.parameters for row in top) == counts.parameters
    assert sum(row.active_parameters for row in top) == counts.active_parameters


def active(model: DecoderSettings, decoder: nn.Module) -> int:
    """Sum what the built model multiplies: no look-ups, k of E experts, the head."""
    total = 0.0
    for path, module in decoder.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            assert isinstance(module, Part)
            if module.roles[name] in ("embedding", "table"):
                continue
            share = 1.0
            if ".experts." in path:
                mixture = decoder.get_submodule(path.split(".experts.")[0])
                share = mixture.router.selector.experts_per_token / mixture.num_experts
            total += parameter.numel() * share
    if model.head.tied:
        total += decoder.embedding.weight.numel()
    return round(total)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(DECODERS)
def test_any_combination_builds_counts_and_is_causal(values):
    # With both blocks used and one layer, the pattern would name nothing.
    values["layers"] = max(values["layers"], 1 + len(values["pattern"]))
    check(values)
    decoder = DecoderSettings.model_validate(values).build().double().eval()
    tokens = torch.randint(13, (1, 6))
    changed = tokens.clone()
    changed[0, 3] = (tokens[0, 3] + 1) % 13
    before, after = decoder(tokens).logits, decoder(changed).logits
    torch.testing.assert_close(before[:, :3], after[:, :3], rtol=0, atol=1e-12)


@pytest.mark.parametrize("window", [None, 1, 3, 9, 20])
def test_attention_counts_the_pairs_that_the_mask_lets_through(window):
    for context in (1, 2, 9, 15):
        pairs = int(visible(context, context, window).sum())
        assert mean_visible(context, window) == pytest.approx(pairs / context)


def test_flops_grow_with_context_by_attention_alone(make_settings):
    counts = count(make_settings())
    layers, width = 2, 16
    growth = counts.flops_per_token(101) - counts.flops_per_token(1)
    assert growth == pytest.approx(layers * 4 * width * 50)
    windowed = count(make_settings(attention={"kind": "grouped", "heads": 2, "window": 4}))
    assert windowed.flops_per_token(10_000) < windowed.flops_per_token(4) * 1.5


def test_equal_neighbours_are_joined_in_the_tree(make_settings):
    moe = {"kind": "moe", "experts": [{"count": 2}], "experts_per_token": 1}
    tree = count_tree(make_settings(
        layers=7, blocks={"moe": {"feedforward": moe}, "dense": {}}, opening=["dense", "dense"],
        pattern=["moe", "moe", "dense"],
    ))  # fmt: skip
    names = [part.name for part in tree.parts if part.name.startswith("block")]
    assert names == ["blocks 0–1", "blocks 2–3", "block 4", "blocks 5–6"]


def test_yinggem_counts_exactly_what_its_authors_published():
    values = {
        "layers": 12, "width": 768, "context": 1024, "vocab_size": 50257,
        "norm": {"kind": "rms", "epsilon": 1e-6},
        "position": {"kind": "rotary", "theta": 10000},
        "attention": {"kind": "grouped", "heads": 12, "window": 512, "bias": True},
        "feedforward": {"kind": "dense", "body": {"kind": "geglu", "width": 1024, "bias": True}},
        "head": {"tied": False, "bias": True},
    }  # fmt: skip
    model = DecoderSettings.model_validate(values)
    assert count(model).parameters == 133_957_969
    with torch.device("meta"):
        decoder = model.build()
        assert sum(parameter.numel() for parameter in decoder.parameters()) == 133_957_969
        assert decoder(torch.zeros(1, 8, dtype=torch.int64)).logits.shape == (1, 8, 50257)
