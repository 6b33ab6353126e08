"""GPT-2: learned positions, LayerNorm, GELU, biases everywhere, the head tied to the embedding.

Radford et al. 2019. Matrices are held as [in, out], those of queries, keys and values joined.
"""

from typing import Any

from coterie.exchange.core.canonical import Canonical
from coterie.exchange.core.tensor_map import Entry, joined, same, transposed
from coterie.exchange.huggingface.config import Config
from coterie.exchange.huggingface.family import Family
from coterie.model import DecoderSettings

_DEFAULTS = {
    "vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12,
    "n_inner": None, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
    "resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1, "scale_attn_weights": True,
    "tie_word_embeddings": True,
}  # fmt: skip
_ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"}


def _reads(config: Config) -> dict[str, Any]:
    width = config.whole("n_embd")
    config.require("activation_function", *_ACTIVATIONS)
    config.require("scale_attn_weights", True)
    if config.raw("embd_pdrop") != config.raw("resid_pdrop"):
        config.notes.append("embd_pdrop differs from resid_pdrop, which is used for both")
    activation = _ACTIVATIONS.get(str(config.raw("activation_function")), "gelu_tanh")
    return {
        "layers": config.whole("n_layer"),
        "width": width,
        "context": config.whole("n_positions"),
        "vocab_size": config.whole("vocab_size"),
        "embedding": {"kind": "full"},
        "position": {"kind": "learned"},
        "norm": {"kind": "layer", "epsilon": config.number("layer_norm_epsilon")},
        "attention": {
            "kind": "grouped",
            "heads": config.whole("n_head"),
            "bias": True,
            "dropout": config.number("attn_pdrop"),
        },
        "feedforward": {
            "kind": "dense",
            "mlp": {
                "kind": "mlp",
                "width": config.whole("n_inner", 4 * width),
                "bias": True,
                "activation": activation,
            },
        },
        "head": {"tied": config.flag("tie_word_embeddings")},
        "dropout": config.number("resid_pdrop"),
    }


def _writes(model: Canonical) -> dict[str, Any]:
    settings, attention = model.settings, model.grouped
    mlp = getattr(model.plans[0].feedforward, "mlp", None)
    exact = getattr(mlp, "activation", None) == "gelu"
    return {
        "vocab_size": model.vocab_size,
        "n_positions": settings.context,
        "n_embd": settings.width,
        "n_layer": settings.layers,
        "n_head": attention.heads,
        "n_inner": model.dense_width,
        "activation_function": "gelu" if exact else "gelu_new",
        "layer_norm_epsilon": model.epsilon,
        "resid_pdrop": model.dropout,
        "embd_pdrop": model.dropout,
        "attn_pdrop": attention.dropout,
        "tie_word_embeddings": settings.head.tied,
    }


def _tensor_map(settings: DecoderSettings) -> list[Entry]:
    entries = [
        same("embedding.weight", "transformer.wte.weight"),
        same("position.weight", "transformer.wpe.weight"),
        same("norm.weight", "transformer.ln_f.weight"),
        same("norm.bias", "transformer.ln_f.bias"),
    ]
    for layer in range(settings.layers):
        entries += _block(f"blocks.{layer}", f"transformer.h.{layer}")
    return entries if settings.head.tied else [*entries, same("head.weight", "lm_head.weight")]


def _block(own: str, foreign: str) -> list[Entry]:
    attention, mlp = f"{own}.attention", f"{own}.feedforward.mlp"
    inputs = [f"{attention}.{name}" for name in ("query", "key", "value")]
    return [
        same(f"{own}.attention_norm.weight", f"{foreign}.ln_1.weight"),
        same(f"{own}.attention_norm.bias", f"{foreign}.ln_1.bias"),
        same(f"{own}.feedforward_norm.weight", f"{foreign}.ln_2.weight"),
        same(f"{own}.feedforward_norm.bias", f"{foreign}.ln_2.bias"),
        joined(inputs, f"{foreign}.attn.c_attn.weight", transpose=True),
        joined([f"{each}_bias" for each in inputs], f"{foreign}.attn.c_attn.bias"),
        transposed(f"{attention}.output", f"{foreign}.attn.c_proj.weight"),
        same(f"{attention}.output_bias", f"{foreign}.attn.c_proj.bias"),
        transposed(f"{mlp}.up", f"{foreign}.mlp.c_fc.weight"),
        same(f"{mlp}.up_bias", f"{foreign}.mlp.c_fc.bias"),
        transposed(f"{mlp}.down", f"{foreign}.mlp.c_proj.weight"),
        same(f"{mlp}.down_bias", f"{foreign}.mlp.c_proj.bias"),
    ]


GPT2 = Family(
    name="gpt2",
    title="GPT-2",
    architecture="GPT2LMHeadModel",
    prefix="transformer.",
    defaults=_DEFAULTS,
    reads=_reads,
    writes=_writes,
    tensor_map=_tensor_map,
    idle=(r".*\.attn\.(bias|masked_bias)",),  # causal masks
    head=("lm_head.weight", "transformer.wte.weight"),
)
