"""Files of ours: exact round trips, the closest architecture, and refusals that name the part."""

from __future__ import annotations

import math

import pytest
import torch

from coterie.exchange.gguf import export_file, import_file
from coterie.exchange.gguf.header import read_header
from coterie.exchange.imported import ExchangeError
from coterie.foundation.errors import UserError
from coterie.model import DecoderSettings, selection_biases
from coterie.tokenizer.settings import parse_tokenizer
from tests.exchange.gguf.conftest import CONTEXT, ROWS, gguf

GROUPED = {"kind": "grouped", "heads": 4, "kv_heads": 2}
NORMED = {**GROUPED, "query_key_norm": "rms"}
LATENT = {"kind": "mla", "heads": 2, "kv_rank": 16, "nope_dim": 8, "rope_dim": 8, "value_dim": 16}
INTERLEAVED = {"kind": "rotary", "layout": "interleaved"}


def routed(**changes):
    """Return the settings of a routed layer."""
    mlp = {"kind": "gated", "width": 32}
    return {
        "kind": "moe",
        "experts": [{"count": 4, "mlp": mlp}],
        "experts_per_token": 2,
        **changes,
    }


def scaled(**scaling):
    """Return the settings of scaled rotary positions."""
    return {"kind": "rotary", "scaling": scaling}


V3_ROUTER = {
    "score": "sigmoid",
    "scale": 2.5,
    "select": {
        "kind": "group_limited", "groups": 2, "groups_per_token": 1, "group_score": "top_two_sum",
    },
}  # fmt: skip
YARN = {"kind": "yarn", "factor": 4.0, "original_context": 16}
EXACT = {
    "llama": ("llama", {"attention": GROUPED}),
    "llama with biases, tied": (
        "llama", {"attention": {**GROUPED, "bias": True}, "head": {"tied": True}},
    ),
    "linear": ("llama", {"attention": GROUPED, "position": scaled(kind="linear", factor=4.0)}),
    "yarn": ("llama", {"attention": {**GROUPED, "head_dim": 16}, "position": scaled(**YARN)}),
    "yarn, other bounds": (
        "llama",
        {"attention": {**GROUPED, "head_dim": 16},
         "position": scaled(**YARN, beta_fast=16.0, beta_slow=2.0)},
    ),
    "llama3": (
        "llama",
        {"attention": {**GROUPED, "head_dim": 16},
         "position": scaled(kind="llama3", factor=8.0, original_context=128)},
    ),
    "mixtral": ("llama", {"attention": GROUPED, "feedforward": routed()}),
    "qwen3": ("qwen3", {"attention": NORMED}),
    "qwen3moe": ("qwen3moe", {"attention": NORMED, "feedforward": routed()}),
    "qwen2moe": (
        "qwen2moe",
        {"attention": {**GROUPED, "bias": "qkv"},
         "feedforward": routed(router={"renormalise": False}, shared_experts=1, shared_gate=True,
                               shared_mlp={"kind": "gated", "width": 64})},
    ),
    "olmoe": (
        "olmoe",
        {"attention": {**NORMED, "kv_heads": 4, "query_key_norm_over": "all"},
         "feedforward": routed(router={"renormalise": False})},
    ),
    "gpt2": (
        "gpt2",
        {"attention": {"kind": "grouped", "heads": 4, "bias": True}, "position": "learned",
         "norm": "layer", "head": {"tied": True},
         "feedforward": {"kind": "dense",
                         "mlp": {"kind": "mlp", "activation": "gelu_tanh", "bias": True}}},
    ),
    "deepseek-v3": (
        "deepseek2",
        {"attention": {**LATENT, "query_rank": 16}, "position": INTERLEAVED, "opening": ["dense"],
         "feedforward": routed(shared_experts=1, router=V3_ROUTER, balance="bias"),
         "blocks": {"dense": {"feedforward": {"kind": "dense"}}}},
    ),
    "deepseek-v2, longer": (
        "deepseek2",
        {"attention": LATENT, "feedforward": routed(shared_experts=1),
         "position": {**INTERLEAVED, "scaling": {
             **YARN, "attention_factor": 1.0, "logit_factor": (0.1 * math.log(4.0) + 1) ** 2}}},
    ),
}  # fmt: skip
OTHER_FORM = {
    "neighbours pair up": ("llama", {"attention": GROUPED, "position": INTERLEAVED}),
    "ntk": ("llama", {"attention": GROUPED, "position": scaled(kind="ntk", factor=4.0)}),
    "unequal widths": (
        "llama",
        {"attention": GROUPED,
         "feedforward": routed(experts=[{"count": 2, "mlp": {"kind": "gated", "width": 16}},
                                        {"count": 2, "mlp": {"kind": "gated", "width": 32}}])},
    ),
    "halves pair up in a latent": (
        "deepseek2", {"attention": LATENT, "feedforward": routed(shared_experts=2)},
    ),
}  # fmt: skip
HOMELESS = {
    "its sliding window of 8": {"attention": {**GROUPED, "window": 8}},
    "rotary positions on 0.5 of each head": {"position": {"kind": "rotary", "fraction": 0.5}},
    "the gelu activation of its MLPs": {
        "feedforward": {"kind": "dense", "mlp": {"kind": "gated", "activation": "gelu"}}},
    "the bias of its head": {"head": {"bias": True}},
    "the selection bias that balances its experts": {"feedforward": routed(balance="bias")},
    "routed layers without a shared expert": {
        "attention": LATENT, "position": INTERLEAVED, "feedforward": routed(),
    },
    "4 heads that do not share the width of 32": {
        "attention": {**GROUPED, "head_dim": 16, "bias": "qkv"},
        "feedforward": routed(router={"renormalise": False}, shared_experts=1, shared_gate=True),
    },
    "a single expert per token with a gate other than 1": {
        "feedforward": routed(experts_per_token=1),
    },
}  # fmt: skip


def made(settings):
    """Return a decoder whose every tensor is random."""
    common = {"layers": 2, "width": 32, "context": CONTEXT, "vocab_size": ROWS}
    decoder = DecoderSettings.model_validate({**common, **settings}).build().eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for tensor in decoder.state_dict().values():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) - 0.4)
    return decoder


@pytest.mark.parametrize("name", EXACT)
def test_a_model_comes_back_bit_for_bit(name, tmp_path, tokens):
    architecture, settings = EXACT[name]
    decoder = made(settings)
    file = export_file(decoder, None, tmp_path / "model.gguf", dtype="f32")
    imported = import_file(file)
    assert imported.architecture == architecture
    assert torch.equal(imported.decoder(tokens).logits, decoder(tokens).logits)
    again = export_file(imported.decoder, None, tmp_path / "again" / "model.gguf", dtype="f32")
    assert again.read_bytes() == file.read_bytes()


@pytest.mark.parametrize("name", OTHER_FORM)
def test_a_model_may_leave_in_another_form_of_the_same_function(name, tmp_path, tokens):
    architecture, settings = OTHER_FORM[name]
    decoder = made(settings)
    imported = import_file(export_file(decoder, None, tmp_path / "model.gguf", dtype="f32"))
    assert imported.architecture == architecture
    assert torch.allclose(imported.decoder(tokens).logits, decoder(tokens).logits, atol=1e-5)


@pytest.mark.parametrize("part", HOMELESS)
def test_a_part_without_a_home_is_named_and_nothing_written(part, tmp_path):
    decoder = made(HOMELESS[part])
    with pytest.raises(ExchangeError, match="closest is") as refusal:
        export_file(decoder, None, tmp_path / "model.gguf")
    assert part in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


def test_an_unused_selection_bias_is_no_obstacle(tmp_path):
    decoder = made({"feedforward": routed(balance="bias")})
    for part in decoder.modules():
        if getattr(part, "selection_bias", None) is not None:
            part.selection_bias.zero_()
    assert selection_biases(decoder)
    imported = import_file(export_file(decoder, None, tmp_path / "model.gguf"))
    assert imported.architecture == "llama"


@pytest.mark.parametrize(("dtype", "error"), [("f16", 5e-3), ("bf16", 4e-2), ("q8_0", 4e-2)])
def test_types_of_matrices(dtype, error, tmp_path, tokens):
    decoder = made({"attention": GROUPED, "feedforward": routed()})
    file = export_file(decoder, None, tmp_path / "model.gguf", dtype=dtype)
    kinds = {name: place.kind for name, place in read_header(file).tensors.items()}
    wanted = gguf.GGMLQuantizationType[dtype.upper()]
    assert kinds["blk.0.ffn_up_exps.weight"] == wanted
    assert kinds["blk.0.attn_norm.weight"] == kinds["blk.0.ffn_gate_inp.weight"] == 0  # float32
    with torch.no_grad():
        logits, exact = import_file(file).decoder(tokens).logits, decoder(tokens).logits
    assert 0 < float((logits - exact).abs().max() / exact.abs().max()) < error


def test_rows_too_short_for_blocks_are_halves(tmp_path):
    decoder = made({"attention": GROUPED, "feedforward": {
        "kind": "dense", "mlp": {"kind": "gated", "width": 40}}})  # fmt: skip
    header = read_header(export_file(decoder, None, tmp_path / "model.gguf", dtype="q8_0"))
    assert header.tensors["blk.0.ffn_down.weight"].kind == gguf.GGMLQuantizationType.F16
    assert header.tensors["blk.0.ffn_up.weight"].kind == gguf.GGMLQuantizationType.Q8_0


def test_the_file_says_all_that_readers_ask_for(tmp_path):
    decoder = made({"attention": GROUPED, "feedforward": routed()})
    file = export_file(decoder, parse_tokenizer("bytes").build(), tmp_path / "model.gguf")
    values = {field.name: field.contents() for field in gguf.GGUFReader(file).fields.values()}
    wanted = {
        "general.architecture": "llama", "general.file_type": 1, "general.alignment": 32,
        "general.quantization_version": 2, "llama.context_length": CONTEXT,
        "llama.embedding_length": 32, "llama.block_count": 2, "llama.feed_forward_length": 32,
        "llama.attention.head_count": 4, "llama.attention.head_count_kv": 2,
        "llama.rope.dimension_count": 8, "llama.rope.freq_base": 10000.0,
        "llama.expert_count": 4, "llama.expert_used_count": 2, "llama.vocab_size": ROWS,
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.eos_token_id": 256,
    }  # fmt: skip
    assert {name: values[name] for name in wanted} == wanted
    assert values["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-6)
    assert len(values["tokenizer.ggml.tokens"]) == ROWS


def test_values_beyond_halves_are_refused(tmp_path):
    decoder = made({"attention": GROUPED})
    with torch.no_grad():
        decoder.blocks[1].attention.output[0, 0] = 1e5
    with pytest.raises(ExchangeError, match=r"blk\.1\.attn_output\.weight holds values beyond f16"):
        export_file(decoder, None, tmp_path / "model.gguf")
    assert list(tmp_path.iterdir()) == []
    export_file(decoder, None, tmp_path / "model.gguf", dtype="bf16")


def test_an_existing_file_and_an_unknown_type_are_refused(tmp_path):
    decoder = made({"attention": GROUPED})
    with pytest.raises(UserError, match="no type “f15” to export as; did you mean “f16”"):
        export_file(decoder, None, tmp_path / "model.gguf", dtype="f15")
    (tmp_path / "model.gguf").write_text("precious")
    with pytest.raises(UserError, match="exists already"):
        export_file(decoder, None, tmp_path / "model.gguf")
    assert (tmp_path / "model.gguf").read_text() == "precious"
