"""Configurations as published: understood to the last parameter, with nothing left unread."""

from __future__ import annotations

import json

import pytest

from coterie.exchange.huggingface import FAMILIES
from coterie.exchange.huggingface.config import Config
from coterie.model import DecoderSettings, count

IDLE = {
    "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.02, "use_cache": True,
    "torch_dtype": "bfloat16", "transformers_version": "4.40.0", "pretraining_tp": 1,
    "attention_dropout": 0.0, "auto_map": {"AutoConfig": "configuration.X"}, "rope_scaling": None,
    "output_router_logits": False,
}  # fmt: skip
LATENT = {
    "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
    "moe_layer_freq": 1, "seq_aux": True, "ep_size": 1, "attention_bias": False,
    "max_position_embeddings": 163840, "hidden_act": "silu", "rms_norm_eps": 1e-6,
    "rope_theta": 10000, "tie_word_embeddings": False,
}  # fmt: skip
YARN = {
    "type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1,
    "original_max_position_embeddings": 4096,
}  # fmt: skip
PUBLISHED = {
    "GPT-2": (124_439_808, "gpt2", {
        "activation_function": "gelu_new", "attn_pdrop": 0.1, "embd_pdrop": 0.1,
        "layer_norm_epsilon": 1e-5, "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12,
        "n_positions": 1024, "resid_pdrop": 0.1, "summary_type": "cls_index",
        "summary_use_proj": True, "task_specific_params": {"text-generation": {"max_length": 50}},
        "vocab_size": 50257}),
    "Llama 3.1 8B": (8_030_261_248, "llama", {
        "attention_bias": False, "hidden_act": "silu", "hidden_size": 4096,
        "intermediate_size": 14336, "max_position_embeddings": 131072, "mlp_bias": False,
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "vocab_size": 128256,
        "tie_word_embeddings": False, "rope_scaling": {
            "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192, "rope_type": "llama3"}}),
    "Mistral 7B": (7_241_732_096, "mistral", {
        "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336,
        "max_position_embeddings": 32768, "num_attention_heads": 32, "num_hidden_layers": 32,
        "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "sliding_window": 4096, "tie_word_embeddings": False, "vocab_size": 32000}),
    "Mixtral 8x7B": (46_702_792_704, "mixtral", {
        "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336,
        "max_position_embeddings": 32768, "num_attention_heads": 32, "num_experts_per_tok": 2,
        "num_hidden_layers": 32, "num_key_value_heads": 8, "num_local_experts": 8,
        "rms_norm_eps": 1e-5, "rope_theta": 1000000.0, "router_aux_loss_coef": 0.02,
        "sliding_window": None, "tie_word_embeddings": False, "vocab_size": 32000}),
    "OLMoE 1B-7B": (6_919_161_856, "olmoe", {
        "attention_bias": False, "clip_qkv": None, "hidden_act": "silu", "hidden_size": 2048,
        "intermediate_size": 1024, "max_position_embeddings": 4096, "norm_topk_prob": False,
        "num_attention_heads": 16, "num_experts": 64, "num_experts_per_tok": 8,
        "num_hidden_layers": 16, "num_key_value_heads": 16, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "router_aux_loss_coef": 0.01, "tie_word_embeddings": False,
        "vocab_size": 50304}),
    "Qwen1.5-MoE-A2.7B": (14_315_784_192, "qwen2_moe", {
        "decoder_sparse_step": 1, "hidden_act": "silu", "hidden_size": 2048,
        "intermediate_size": 5632, "max_position_embeddings": 8192, "max_window_layers": 21,
        "moe_intermediate_size": 1408, "norm_topk_prob": False, "num_attention_heads": 16,
        "num_experts": 60, "num_experts_per_tok": 4, "num_hidden_layers": 24,
        "num_key_value_heads": 16, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
        "router_aux_loss_coef": 0.001, "shared_expert_intermediate_size": 5632,
        "sliding_window": 32768, "tie_word_embeddings": False, "use_sliding_window": False,
        "vocab_size": 151936}),
    "Qwen3-30B-A3B": (30_532_122_624, "qwen3_moe", {
        "attention_bias": False, "decoder_sparse_step": 1, "head_dim": 128, "hidden_act": "silu",
        "hidden_size": 2048, "intermediate_size": 6144, "max_position_embeddings": 40960,
        "max_window_layers": 48, "mlp_only_layers": [], "moe_intermediate_size": 768,
        "norm_topk_prob": True, "num_attention_heads": 32, "num_experts": 128,
        "num_experts_per_tok": 8, "num_hidden_layers": 48, "num_key_value_heads": 4,
        "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "router_aux_loss_coef": 0.001,
        "sliding_window": None, "tie_word_embeddings": False, "use_sliding_window": False,
        "vocab_size": 151936}),
    "DeepSeek-V2-Lite": (15_706_484_224, "deepseek_v2", LATENT | {
        "aux_loss_alpha": 0.001, "first_k_dense_replace": 1, "hidden_size": 2048,
        "intermediate_size": 10944, "moe_intermediate_size": 1408, "n_group": 1,
        "n_routed_experts": 64, "n_shared_experts": 2, "norm_topk_prob": False,
        "num_attention_heads": 16, "num_experts_per_tok": 6, "num_hidden_layers": 27,
        "num_key_value_heads": 16, "q_lora_rank": None, "routed_scaling_factor": 1.0,
        "scoring_func": "softmax", "topk_group": 1, "topk_method": "greedy", "vocab_size": 102400,
        "rope_scaling": YARN | {"mscale": 0.707, "mscale_all_dim": 0.707}}),
    # The main model, and its module for a further token without the embedding and head they share.
    "DeepSeek-V3": (671_026_404_352 + 11_610_067_968, "deepseek_v3", LATENT | {
        "aux_loss_alpha": 0.001, "first_k_dense_replace": 3, "hidden_size": 7168,
        "intermediate_size": 18432, "moe_intermediate_size": 2048, "n_group": 8,
        "n_routed_experts": 256, "n_shared_experts": 1, "norm_topk_prob": True,
        "num_attention_heads": 128, "num_experts_per_tok": 8, "num_hidden_layers": 61,
        "num_key_value_heads": 128, "num_nextn_predict_layers": 1, "q_lora_rank": 1536,
        "routed_scaling_factor": 2.5, "scoring_func": "sigmoid", "topk_group": 4,
        "topk_method": "noaux_tc", "vocab_size": 129280,
        "rope_scaling": YARN | {"mscale": 1.0, "mscale_all_dim": 1.0}}),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configurations_are_understood(name):
    parameters, kind, values = PUBLISHED[name]
    family = FAMILIES[kind]
    config = Config(IDLE | values, family.defaults, family.aliases)
    settings = DecoderSettings.model_validate(family.reads(config))
    config.finish("config.json")
    assert config.notes == []
    assert count(settings).parameters == parameters


def change_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"model_type": "mixtrel"}, "“mixtrel”.*did you mean “mixtral”"),
        ({"model_type": None}, "no model_type"),
        ({"architectures": ["MixtralForSequenceClassification"]}, "no language model"),
        ({"architectures": ["x" * 9000]}, "class “x{60}…”, which is no language model"),
        ({"model_type": "x" * 9000}, "architecture “x{60}…”"),
        ({"hidden_size": "wide"}, "hidden_size is 'wide'.*whole number"),
        (
            {"hidden_size": 16.5, "num_hidden_layers": 0},
            "num_hidden_layers is 0.*hidden_size is 16.5",
        ),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; only 'silu' or 'swish'"),
        ({"rms_norm_eps": True}, "rms_norm_eps is True"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no'"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping is 50.0, which no part"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"num_attention_heads": 2, "num_key_value_heads": 3}, "not a multiple of kv_heads"),
        ({"num_experts_per_tok": 9}, "experts_per_token=9, but there are only 3"),
        ({"num_experts_per_tok": 1}, "renormalise with experts_per_token=1"),
    ],
)
def test_a_configuration_that_cannot_be_built(refused, folder, values, words):
    import re

    change_config(folder, **values)
    found = refused()
    assert re.search(words, found, re.DOTALL), found


def test_all_problems_of_a_configuration_at_once(refused, folder):
    change_config(folder, hidden_act="relu", clip_qkv=3.0, vocab_size=-1)
    found = refused()
    for name in ("hidden_act", "clip_qkv", "vocab_size"):
        assert name in found


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"num_hidden_layers": 100_000_000}, "100,000,000 layers"),
        ({"vocab_size": 1_000_000_000}, "shape"),
        ({"vocab_size": 10**15}, "vocab_size is 1000000000000000"),
        ({"intermediate_size": 1_000_000_000}, "shape"),
        ({"num_local_experts": 100_000_000}, "num_local_experts is 100000000"),
        ({"rope_parameters": {"rope_type": ["yarn"]}}, "scaling ['yarn'] is not known"),
        ({"rope_parameters": {"rope_theta": "far"}}, "rope_theta is 'far'"),
        ({"rope_parameters": None, "rope_theta": [1]}, "rope_theta is [1]"),
        ({"rope_parameters": {"partial_rotary_factor": "half"}}, "partial_rotary_factor is 'half'"),
    ],
)
def test_sizes_beyond_memory_and_values_of_another_type_are_refused(folder, refused, values, said):
    change_config(folder, **values)
    assert said in refused()
