"""Every family: the same logits as transformers, both ways, with and without a cache."""

from __future__ import annotations

import pytest
import torch

from coterie.exchange.huggingface import FAMILIES, export_folder, import_folder
from coterie.generate.cache import FullCacheSettings, WindowCacheSettings
from coterie.generate.session import cache_specs
from coterie.model.context import ForwardContext
from tests.exchange.huggingface.conftest import make_foreign

MODELS = {
    "gpt2": {},
    "gpt2 exact gelu, own width, untied": {
        "activation_function": "gelu", "n_inner": 50, "tie_word_embeddings": False,
    },
    "llama": {},
    "llama multi-head, biases, tied": {
        "num_key_value_heads": 4, "attention_bias": True, "mlp_bias": True,
        "tie_word_embeddings": True,
    },
    "llama wide heads": {"head_dim": 20},
    "mistral no window": {"sliding_window": None},
    "mistral window": {"sliding_window": 5, "head_dim": 20},
    "mixtral": {},
    "mixtral window": {"sliding_window": 5, "head_dim": 6},
    "olmoe": {},
    "olmoe normalised gates, biases": {"norm_topk_prob": True, "attention_bias": True},
    "qwen2_moe": {},
    "qwen2_moe dense and window layers": {
        "mlp_only_layers": [1], "use_sliding_window": True, "sliding_window": 5,
        "max_window_layers": 2, "norm_topk_prob": True,
    },
    "qwen3_moe": {},
    "qwen3_moe dense first, window, biases": {
        "decoder_sparse_step": 2, "use_sliding_window": True, "sliding_window": 6,
        "attention_bias": True, "norm_topk_prob": True,
    },
    "qwen3_moe all dense": {"mlp_only_layers": [0, 1]},
    "glm4_moe": {},
    "glm4_moe norms, biases, one group": {
        "use_qk_norm": True, "attention_bias": True, "n_group": 1, "topk_group": 1,
        "n_shared_experts": 1, "first_k_dense_replace": 0,
    },
    "deepseek_v2": {},
    "deepseek_v2 groups, biases": {
        "topk_method": "group_limited_greedy", "attention_bias": True, "mlp_bias": True,
    },
    "deepseek_v3": {},
    "deepseek_v3 whole queries, halves, no shared": {
        "q_lora_rank": None, "rope_interleave": False, "n_shared_experts": 0,
        "attention_bias": True, "tie_word_embeddings": True, "norm_topk_prob": False,
    },
}  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
every_model = pytest.mark.parametrize(
    ("kind", "changes"),
    [pytest.param(name.split()[0], changes, id=name) for name, changes in MODELS.items()],
)


def difference(one, other):
    return (one - other).abs().max().item()


def cached(decoder, tokens, settings, cut):
    """Return logits of a text read in pieces through a cache."""
    cache = settings.build(cache_specs(decoder))
    pieces = tokens.split(cut, dim=1)
    return torch.cat(
        [decoder(piece, context=ForwardContext(cache=cache)).logits for piece in pieces], dim=1
    )


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """Make a foreign model and import it, once for all tests that only read them."""
    made = {}

    def make(kind, changes):
        key = repr((kind, changes))
        if key not in made:
            model, folder = make_foreign(kind, **changes), tmp_path_factory.mktemp(kind)
            model.save_pretrained(folder)
            made[key] = model, import_folder(folder)
        return made[key]

    return make


def test_every_family_is_tried():
    assert {name.split()[0] for name in MODELS} == set(FAMILIES)


@every_model
@torch.no_grad()
def test_logits_are_those_of_transformers(kind, changes, imported, tokens):
    theirs, found = imported(kind, changes)
    ours = found.decoder
    assert found.architecture == kind
    assert found.notes == ()
    for batch, length in ((1, 1), (3, 7), (2, 24)):
        x = tokens(batch, length)
        expected, found = theirs(x).logits, ours(x).logits
        assert difference(found, expected) <= 2e-5
    assert difference(cached(ours, x, FullCacheSettings(), 9), expected) <= 2e-5
    assert expected.std() > 0.3  # the bounds above would mean nothing on tiny logits
    # Rows of a batch do not meet.
    assert difference(ours(x[:1]).logits, expected[:1]) <= 2e-5


@every_model
@torch.no_grad()
def test_logits_are_the_same_numbers_in_float64(kind, changes, foreign, double, tokens, tmp_path):
    with double():
        theirs = foreign(kind, **changes).double()
        theirs.save_pretrained(tmp_path)
        ours = import_folder(tmp_path, dtype=None).decoder
        assert next(ours.parameters()).dtype == torch.float64
        x = tokens(2, 24)
        expected = theirs(x).logits
        assert difference(ours(x).logits, expected) <= 1e-11
        assert difference(cached(ours, x, WindowCacheSettings(), 7), expected) <= 1e-11


@every_model
@torch.no_grad()
def test_export_is_loaded_by_transformers(kind, changes, imported, load, tokens, tmp_path):
    model, found = imported(kind, changes)
    ours = found.decoder
    export_folder(ours, None, tmp_path / "ours")
    x = tokens(2, 24)
    assert difference(load(tmp_path / "ours")(x).logits, model(x).logits) <= 2e-5
    # Once more around: the same settings, the same tensors, bit by bit.
    again = import_folder(tmp_path / "ours")
    assert again.notes == ()
    assert torch.equal(again.decoder(x).logits, ours(x).logits)
    if again.architecture == kind:
        assert again.decoder.settings == ours.settings
        for name, tensor in ours.state_dict().items():
            assert torch.equal(again.decoder.state_dict()[name], tensor), name
    export_folder(again.decoder, None, tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        first, second = (tmp_path / folder / name for folder in ("ours", "again"))
        assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("kind", ["glm4_moe", "deepseek_v3"])
@torch.no_grad()
def test_the_selection_bias_decides_and_travels(kind, foreign, load, tokens, tmp_path):
    model = foreign(kind)
    model.save_pretrained(tmp_path / "theirs")
    ours = import_folder(tmp_path / "theirs").decoder
    bias = ours.blocks[1].feedforward.balance.selection_bias
    assert bias.dtype == torch.float32
    assert torch.equal(bias, model.model.layers[1].mlp.gate.e_score_correction_bias)
    x = tokens(2, 24)
    with_bias = ours(x).logits
    export_folder(ours, None, tmp_path / "ours", dtype=torch.bfloat16)
    kept = load(tmp_path / "ours").model.layers[1].mlp.gate.e_score_correction_bias
    assert torch.equal(kept, bias)  # float32 whatever the weights are
    bias.zero_()
    assert difference(ours(x).logits, with_bias) > 1e-3
