"""What Qwen2-MoE and Qwen3-MoE share: which layers are routed, and their values.

A layer is routed unless `mlp_only_layers` names it or its number, from one, is no multiple of
`decoder_sparse_step`.
"""

from typing import Any

from coterie.exchange.core.canonical import Canonical
from coterie.exchange.core.layers import dense
from coterie.exchange.huggingface.config import Config
from coterie.exchange.huggingface.families.common import read_routed, write_routed

DEFAULTS = {
    "vocab_size": 151936, "hidden_size": 2048, "num_hidden_layers": 24, "hidden_act": "silu",
    "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
    "use_sliding_window": False, "sliding_window": 4096, "attention_dropout": 0.0,
    "decoder_sparse_step": 1, "norm_topk_prob": False, "router_aux_loss_coef": 0.001,
    "mlp_only_layers": None,
}  # fmt: skip
_EXPERTS = ("num_experts", "moe_intermediate_size")


def read_labels(config: Config) -> list[str]:
    """Return `moe` or `dense` for each layer."""
    step = config.whole("decoder_sparse_step")
    without = config.raw("mlp_only_layers") or []
    if not isinstance(without, list) or not all(isinstance(each, int) for each in without):
        config.refuse(f"mlp_only_layers is {without!r}; it must be a list of layers")
        without = []
    experts = config.count("num_experts", least=0)
    layers = range(config.whole("num_hidden_layers"))
    is_routed = (experts and each not in without and (each + 1) % step == 0 for each in layers)
    return ["moe" if each else "dense" for each in is_routed]


def read_feedforward(config: Config, *, shared: str | None = None) -> dict[str, dict[str, Any]]:
    """Return the settings of routed and of dense layers, by label.

    Args:
        shared: name of the width of a gated shared expert; None: there is none.
    """
    router = {"renormalise": config.flag("norm_topk_prob")}
    return {
        "dense": dense(config.whole("intermediate_size")),
        "moe": read_routed(config, *_EXPERTS, router=router, least=0, gated_shared=shared),
    }


def write_feedforward(model: Canonical) -> dict[str, Any]:
    return {
        "intermediate_size": model.dense_width or model.expert_width,
        "norm_topk_prob": bool(model.mixture.router.renormalise),
        "decoder_sparse_step": 1,
        "mlp_only_layers": [i for i, routed in enumerate(model.is_routed) if not routed],
        **write_routed(model, *_EXPERTS),
    }
