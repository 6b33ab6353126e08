"""Tiny foreign models with random weights, and a world in which all floating point is float64."""

from __future__ import annotations

import contextlib
import os

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers", reason="the test extra brings it")
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

VOCABULARY, CONTEXT = 61, 24
COMMON = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 40, "max_position_embeddings": CONTEXT,
    "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
}  # fmt: skip
ROUTED = {
    "n_routed_experts": 8, "num_experts_per_tok": 3, "n_shared_experts": 2,
    "moe_intermediate_size": 16, "first_k_dense_replace": 1, "n_group": 4, "topk_group": 2,
    "routed_scaling_factor": 1.7,
}  # fmt: skip
LATENT = {
    "num_key_value_heads": 4, "q_lora_rank": 12, "kv_lora_rank": 16, "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 6, "v_head_dim": 10,
}  # fmt: skip
EXPERTS = {"num_experts": 6, "num_experts_per_tok": 3}
SIZES = {
    "gpt2": {
        "vocab_size": VOCABULARY, "n_positions": CONTEXT, "n_embd": 32, "n_layer": 2, "n_head": 4,
        "bos_token_id": None, "eos_token_id": None,
    },
    "llama": COMMON,
    "mistral": COMMON,
    "mixtral": COMMON | {"num_local_experts": 5, "num_experts_per_tok": 2},
    "olmoe": COMMON | EXPERTS,
    "qwen2_moe": COMMON | EXPERTS
    | {"moe_intermediate_size": 24, "shared_expert_intermediate_size": 20},
    "qwen3_moe": COMMON | EXPERTS | {"moe_intermediate_size": 24, "head_dim": 10},
    "glm4_moe": COMMON | ROUTED | {"head_dim": 12},
    "deepseek_v2": COMMON | LATENT | ROUTED,
    "deepseek_v3": COMMON | LATENT | ROUTED,
}  # fmt: skip


@pytest.fixture
def foreign():
    """Make a model of transformers: `foreign("llama", attention_bias=True)`."""
    return make_foreign


def make_foreign(model_type: str, seed: int = 0, **changes):
    """Return a tiny model; its biases, norms and selection biases are random as well."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = transformers.AutoConfig.for_model(model_type, **SIZES[model_type] | changes)
        # The other ways of computing experts know no float64.
        model = transformers.AutoModelForCausalLM.from_config(
            config, experts_implementation="eager"
        ).eval()
        with torch.no_grad():
            for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
                if "inv_freq" not in name:
                    tensor.add_(torch.randn_like(tensor) * 0.2)
    return model


@pytest.fixture
def double():
    """Enter a world where both sides compute everything, tables and norms too, in float64."""
    return in_double


@contextlib.contextmanager
def in_double():
    """Let the names of narrower types mean float64, and `.float()` make it."""
    names = {"float32": torch.float64, "float": torch.float64, "complex64": torch.complex128}
    kept = {name: getattr(torch, name) for name in names}
    to_float = torch.Tensor.float
    try:
        for name, wider in names.items():
            setattr(torch, name, wider)
        torch.Tensor.float = torch.Tensor.double
        torch.set_default_dtype(torch.float64)
        yield
    finally:
        for name, dtype in kept.items():
            setattr(torch, name, dtype)
        torch.Tensor.float = to_float
        torch.set_default_dtype(torch.float32)


@pytest.fixture
def load():
    """Load a folder with transformers, as anyone would."""

    def load_folder(path, **options):
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            path, output_loading_info=True, experts_implementation="eager", **options
        )
        wrong = {name: sorted(keys) for name, keys in info.items() if keys}
        assert not wrong, wrong
        return model.eval()

    return load_folder


@pytest.fixture
def tokens():
    """Make random tokens [B, T]."""

    def make(batch: int, length: int):
        generator = torch.Generator().manual_seed(length)
        return torch.randint(0, VOCABULARY, (batch, length), generator=generator)

    return make
