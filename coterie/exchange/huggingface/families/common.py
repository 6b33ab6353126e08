"""What the families after Llama share in config.json: RMSNorm, rotary positions, gated layers."""

from collections.abc import Callable
from typing import Any

from coterie.exchange.core.canonical import Canonical
from coterie.exchange.core.layers import routed
from coterie.exchange.huggingface.config import Config
from coterie.exchange.huggingface.rope import write_rope
from coterie.model.experts.balance import AuxiliaryBalance


def read_stream(config: Config) -> dict[str, Any]:
    config.require("hidden_act", "silu", "swish")
    return {
        "layers": config.whole("num_hidden_layers"),
        "width": config.whole("hidden_size"),
        "context": config.whole("max_position_embeddings"),
        "vocab_size": config.whole("vocab_size"),
        "embedding": {"kind": "full"},
        "norm": {"kind": "rms", "epsilon": config.number("rms_norm_eps")},
        "head": {"tied": config.flag("tie_word_embeddings")},
    }


def read_attention(config: Config) -> dict[str, Any]:
    """Return the settings of grouped-query attention without anything special."""
    heads = config.whole("num_attention_heads")
    return {
        "kind": "grouped",
        "heads": heads,
        "kv_heads": config.whole("num_key_value_heads", heads),
        "head_dim": config.whole("head_dim", max(config.whole("hidden_size") // heads, 1)),
        "dropout": config.number("attention_dropout", 0.0),
    }


def read_window(config: Config) -> int | None:
    """Return the sliding window of every layer; None: there is none."""
    return None if config.raw("sliding_window") is None else config.whole("sliding_window")


def read_routed(
    config: Config,
    count: str,
    hidden: str,
    *,
    router: dict[str, Any],
    least: int = 1,
    gated_shared: str | None = None,
) -> dict[str, Any]:
    """Return the settings of routed layers.

    The coefficient of the load balancing loss is kept for further training here.

    Args:
        count: name of the number of experts.
        hidden: name of their width.
        least: least number of experts that the family's code accepts.
        gated_shared: name of the width of a gated shared expert; None: there is none.
    """
    coefficient = config.number("router_aux_loss_coef", 0.0)
    return routed(
        max(config.count(count, least=least), 1),
        config.whole(hidden),
        config.whole("num_experts_per_tok"),
        router=router,
        balance={"kind": "auxiliary", "coefficient": coefficient} if coefficient else "none",
        shared=config.whole(gated_shared) if gated_shared else 0,
        shared_gate=gated_shared is not None,
    )


def write_stream(model: Canonical) -> dict[str, Any]:
    """Return what config.json says of the stream, its ends, and grouped-query attention."""
    settings, attention = model.settings, model.grouped
    return {
        "vocab_size": model.vocab_size,
        "hidden_size": settings.width,
        "num_hidden_layers": settings.layers,
        "num_attention_heads": attention.heads,
        "num_key_value_heads": attention.key_heads,
        "head_dim": attention.channels(settings.width),
        "hidden_act": "silu",
        "rms_norm_eps": model.epsilon,
        "attention_dropout": attention.dropout,
        "tie_word_embeddings": settings.head.tied,
        **write_rope(model),
    }


def write_routed(model: Canonical, count: str, hidden: str) -> dict[str, Any]:
    """Return what config.json says of routed layers; the names are those of `read_routed`."""
    mixture = model.mixture
    balance = mixture.balance
    coefficient = balance.coefficient if isinstance(balance, AuxiliaryBalance) else 0.0
    return {
        hidden: model.expert_width,
        "num_experts_per_tok": mixture.experts_per_token,
        count: mixture.num_experts,
        "router_aux_loss_coef": coefficient,
        "output_router_logits": False,
    }


def equal_heads(model: Canonical) -> list[str]:
    """Refuse heads that do not share the width between them."""
    attention, width = model.grouped, model.settings.width
    channels = attention.channels(width)
    if attention.heads * channels == width:
        return []
    return [f"{attention.heads} heads of {channels} channels in a width of {width}"]


def divided_width(heads: Callable[[Canonical], int]) -> Callable[[Canonical], list[str]]:
    """Return the limit of families whose width must be a multiple of the heads."""

    def limit(model: Canonical) -> list[str]:
        width, number = model.settings.width, heads(model)
        message = f"a width of {width} that is not a multiple of its {number} heads"
        return [message] if width % number else []

    return limit
