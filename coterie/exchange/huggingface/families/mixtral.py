"""Mixtral: Llama with routed SwiGLU experts in every layer, and an optional sliding window.

Jiang et al. 2024, arXiv:2401.04088: softmax over all experts, the gates of the best k renormalised.
"""

from typing import Any

from coterie.exchange.core.canonical import Canonical
from coterie.exchange.core.tensor_map import ExpertNames
from coterie.exchange.huggingface.config import Config
from coterie.exchange.huggingface.families import common
from coterie.exchange.huggingface.families.tensors import FUSED, RoutedNames, tensor_map_with
from coterie.exchange.huggingface.family import Family
from coterie.exchange.huggingface.rope import read_rope

_DEFAULTS = {
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": None, "hidden_act": "silu",
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
    "sliding_window": None, "attention_dropout": 0.0, "num_experts_per_tok": 2,
    "num_local_experts": 8, "router_aux_loss_coef": 0.001, "router_jitter_noise": 0.0,
}  # fmt: skip
_NUMBERED = ExpertNames("experts.{e}.w1.weight", "experts.{e}.w3.weight", "experts.{e}.w2.weight")
_NAMES = RoutedNames(
    router=("block_sparse_moe.gate.weight", "mlp.gate.weight"),
    experts=(_NUMBERED.under("block_sparse_moe."), FUSED.under("mlp."), _NUMBERED.under("mlp.")),
)
_EXPERTS = ("num_local_experts", "intermediate_size")


def _reads(config: Config) -> dict[str, Any]:
    router = {"score": "softmax", "select": "top_k", "renormalise": True}
    return {
        **common.read_stream(config),
        "position": read_rope(config, theta=1_000_000.0),
        "attention": common.read_attention(config) | {"window": common.read_window(config)},
        "feedforward": common.read_routed(config, *_EXPERTS, router=router),
    }


def _writes(model: Canonical) -> dict[str, Any]:
    return {
        **common.write_stream(model),
        "sliding_window": model.grouped.window,
        **common.write_routed(model, *_EXPERTS),
    }


def _limits(model: Canonical) -> list[str]:
    single = model.mixture.experts_per_token == 1
    return ["one expert per token, whose gate Mixtral sets to 1"] if single else []


MIXTRAL = Family(
    name="mixtral", title="Mixtral", architecture="MixtralForCausalLM", defaults=_DEFAULTS,
    reads=_reads, writes=_writes, tensor_map=tensor_map_with(_NAMES), limits=_limits,
    aliases={"num_experts": "num_local_experts"},
)  # fmt: skip
