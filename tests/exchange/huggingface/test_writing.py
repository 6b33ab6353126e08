"""Models of ours leave by the simplest architecture that is exactly them, or not at all."""

from __future__ import annotations

import json

import pytest
import torch

from coterie.exchange.files import INDEX
from coterie.exchange.huggingface import export_folder, import_folder
from coterie.exchange.imported import ExchangeError
from coterie.foundation.errors import UserError
from coterie.model import DecoderSettings
from coterie.tokenizer.characters import CharacterTokenizer
from coterie.tokenizer.raw_bytes import ByteTokenizer
from coterie.tokenizer.special import END_OF_TEXT, UNKNOWN

SWIGLU = {"kind": "gated", "width": 24}
LLAMA = {
    "layers": 2, "width": 32, "context": 24, "vocab_size": 61,
    "attention": {"kind": "grouped", "heads": 4, "kv_heads": 2},
    "feedforward": {"kind": "dense", "mlp": SWIGLU},
}  # fmt: skip
MOE = {"kind": "moe", "experts": [{"count": 4, "mlp": SWIGLU}], "experts_per_token": 2}
MLA = {"kind": "mla", "heads": 4, "kv_rank": 16, "nope_dim": 8, "rope_dim": 6, "value_dim": 10}
SIGMOID = {"score": "sigmoid", "scale": 1.5}
BIASED = MOE | {"router": SIGMOID, "balance": {"kind": "bias"}}


def made(**changes):
    """Return a decoder whose every tensor is random, biases and norms too."""
    generator = torch.Generator().manual_seed(1)
    decoder = DecoderSettings.model_validate(LLAMA | changes).build(generator).eval()
    with torch.no_grad():
        for name, tensor in decoder.state_dict().items():
            if tensor.is_floating_point() and not name.endswith("selection_bias"):
                tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.2)
            elif name.endswith("selection_bias"):
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
    return decoder


def moe(**changes):
    return {"feedforward": MOE | changes}


EXPRESSED = {
    "biases on queries, keys and values": ("llama", {
        "attention": {"kind": "grouped", "heads": 4, "bias": "qkv"}}),
    "interleaved pairs": ("llama", {
        "position": {"kind": "rotary", "layout": "interleaved"},
        "attention": {"kind": "grouped", "heads": 4, "kv_heads": 2, "bias": True}}),
    "norms without a scale": ("llama", {"norm": {"kind": "rms", "scale": False}}),
    "unequal dense widths": ("llama", {
        "blocks": {"a": {}, "b": {"feedforward": {"kind": "dense", "mlp": SWIGLU | {"width": 8}}}},
        "pattern": ("a", "b")}),
    "gpt2 without biases": ("gpt2", {
        "position": "learned", "norm": {"kind": "layer", "bias": False},
        "attention": {"kind": "grouped", "heads": 4},
        "feedforward": {"kind": "dense", "mlp": {"kind": "mlp", "activation": "gelu_tanh"}}}),
    "a dense window": ("mistral", {
        "attention": {"kind": "grouped", "heads": 4, "kv_heads": 2, "window": 5}}),
    "heads wider than the model": ("mistral", {
        "attention": {"kind": "grouped", "heads": 5, "head_dim": 8}}),
    "window": ("mixtral", moe() | {
        "attention": {"kind": "grouped", "heads": 4, "window": 5}}),
    "experts of unequal width": ("mixtral", moe(experts=[
        {"count": 3, "mlp": SWIGLU}, {"count": 2, "mlp": SWIGLU | {"width": 40}}])),
    "norms of whole queries": ("olmoe", moe() | {"attention": {
        "kind": "grouped", "heads": 4, "query_key_norm": True, "query_key_norm_over": "all"}}),
    "norms of heads, interleaved": ("qwen3_moe", moe(router={"renormalise": False}) | {
        "position": {"kind": "rotary", "layout": "interleaved"},
        "attention": {"kind": "grouped", "heads": 4, "kv_heads": 2, "query_key_norm": True}}),
    "gates that are not renormalised": ("deepseek_v2", moe(router={"renormalise": False}) | {
        "attention": MLA}),
    "two gated shared experts": ("qwen2_moe", moe(
        shared_experts=2, shared_gate=True, router={"renormalise": False})),
    "selection bias": ("glm4_moe", {"feedforward": BIASED}),
    "a shared expert of its own width": ("glm4_moe", {"feedforward": BIASED | {
        "shared_experts": 1, "shared_mlp": SWIGLU | {"width": 30}}}),
    "part of each head, interleaved": ("glm4_moe", {"feedforward": BIASED, "position": {
        "kind": "rotary", "layout": "interleaved", "fraction": 0.5}}),
    "latent attention, halves": ("deepseek_v2", moe(router={"renormalise": False}) | {
        "attention": MLA | {"query_rank": 12}}),
    "latent attention and selection bias": ("deepseek_v3", {
        "attention": MLA, "feedforward": BIASED | {"shared_experts": 2}}),
    "what acts in training alone": ("mixtral", moe(
        capacity_factor=1.0, expert_dropout=0.1, balance={"kind": "auxiliary"}) | {
        "dropout": 0.1, "stochastic_depth": 0.1}),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize(
    ("kind", "changes"), [pytest.param(*given, id=name) for name, given in EXPRESSED.items()]
)
@torch.no_grad()
def test_the_same_function_leaves(kind, changes, double, load, tokens, tmp_path):
    with double():
        decoder = made(**changes).double()
        export_folder(decoder, None, tmp_path / "out")
        assert json.loads((tmp_path / "out/config.json").read_text())["model_type"] == kind
        x = tokens(2, 24)
        expected = decoder(x).logits
        assert expected.std() > 0.1
        theirs = load(tmp_path / "out", dtype=torch.float64)
        back = import_folder(tmp_path / "out", dtype=None).decoder
        for other in (theirs, back):
            assert (other(x).logits - expected).abs().max() < 1e-11


REFUSED = {
    "OLMoE.*sliding window of 5": moe() | {"attention": {
        "kind": "grouped", "heads": 4, "window": 5, "query_key_norm": True,
        "query_key_norm_over": "all"}},
    "Mixtral.*experts of unequal kinds": moe(experts=[
        {"count": 2, "mlp": SWIGLU}, {"count": 2, "mlp": SWIGLU | {"activation": "gelu"}}]),
    "Mixtral.*gelu activation of its experts": moe(
        experts=[{"count": 2, "mlp": SWIGLU | {"activation": "gelu"}}]),
    "Llama.*ngram embedding": {"embedding": {"kind": "ngram", "rows": 64}},
    "Llama.*counted n-grams": {"ngram": {"order": 3}},
    "Llama.*factorised embedding": {"embedding": {"kind": "factorised", "rank": 8}},
    "Llama.*bias of its head": {"head": {"bias": True}},
    "Llama.*none positions": {"position": "none"},
    "Mixtral.*selection bias": moe(balance={"kind": "bias"}),
    "Mistral.*attention sinks": {
        "attention": {"kind": "grouped", "heads": 4, "window": 5, "sinks": 2}},
    "Llama.*parallel layout": {"block_layout": "parallel"},
    "Mixtral.*dynamic selection": moe(router={"select": {"kind": "dynamic", "mass": 0.5}}),
    "Mixtral.*factor 2.0 on": moe(router={"scale": 2.0}),
    "DeepSeek-V2.*rotary key per_head": moe(router={"renormalise": False}) | {
        "attention": MLA | {"rotary_key": "per_head"}},
}  # fmt: skip


@pytest.mark.parametrize("reason", REFUSED)
def test_what_has_no_home_is_named_and_nothing_written(reason, tmp_path):
    with pytest.raises(ExchangeError, match=f"(?s){reason}"):
        export_folder(made(**REFUSED[reason]), None, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@torch.no_grad()
def test_a_selection_bias_of_zero_may_stay_behind(tokens, load, tmp_path):
    decoder = made(**moe(balance={"kind": "bias"}))
    for block in decoder.blocks:
        block.feedforward.balance.selection_bias.zero_()
    export_folder(decoder, None, tmp_path / "out")
    x = tokens(2, 24)
    assert (load(tmp_path / "out")(x).logits - decoder(x).logits).abs().max() < 2e-5


@torch.no_grad()
def test_narrow_and_sharded(load, tokens, tmp_path):
    decoder = made()
    export_folder(decoder, None, tmp_path / "out", dtype=torch.bfloat16, shard_bytes=8000)
    index = json.loads((tmp_path / "out" / INDEX).read_text())
    assert len(set(index["weight_map"].values())) > 2
    x = tokens(2, 24)
    expected = decoder.to(torch.bfloat16).float()(x).logits
    assert (load(tmp_path / "out", dtype=torch.float32)(x).logits - expected).abs().max() < 2e-5


def test_values_beyond_half_precision_are_refused(tmp_path):
    decoder = made()
    decoder.state_dict()["blocks.1.attention.query"][0, 0] = 1e6
    with pytest.raises(ExchangeError, match=r"layers.1.self_attn.q_proj.*beyond float16.*1e\+06"):
        export_folder(decoder, None, tmp_path / "out", dtype=torch.float16)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(UserError, match="exists already"):
        export_folder(made(), None, tmp_path)
    assert (tmp_path / "mine").read_text() == "precious"


@pytest.mark.parametrize(
    "tokenizer",
    [ByteTokenizer([END_OF_TEXT]), CharacterTokenizer("abcdefgh \n", [END_OF_TEXT, UNKNOWN])],
    ids=["bytes", "characters"],
)
def test_the_tokenizer_travels_along(tokenizer, tmp_path):
    from transformers import AutoTokenizer, GenerationConfig

    decoder = made(vocab_size=tokenizer.vocab_size)
    export_folder(decoder, tokenizer, tmp_path / "out")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    text = "abc bad\nhead"
    assert theirs(text, add_special_tokens=False)["input_ids"] == tokenizer.encode(text)
    assert theirs.eos_token_id == tokenizer.end_of_text
    assert GenerationConfig.from_pretrained(tmp_path / "out").eos_token_id == tokenizer.end_of_text
    imported = import_folder(tmp_path / "out")
    assert imported.tokenizer.encode(text) == tokenizer.encode(text)
    card = (tmp_path / "out/README.md").read_text()
    assert "Llama" in card
    assert "AutoModelForCausalLM" in card


def test_a_tokenizer_beyond_the_model_is_refused(tmp_path):
    export_folder(made(), ByteTokenizer([END_OF_TEXT]), tmp_path / "out")
    with pytest.raises(ExchangeError, match="knows 61 tokens; 195 ordinary ones"):
        import_folder(tmp_path / "out")
