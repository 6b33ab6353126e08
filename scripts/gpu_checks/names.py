"""The settings of the checked models, and the few names of the package that the checks rely on.

Whatever a rename touches stands here and nowhere else in the checks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from coterie.api.given import resolve
from coterie.model import Decoder, DecoderSettings, Dense, Output
from coterie.model.context import ForwardContext
from coterie.model.experts.layer import MixtureOfExperts

NEW = "mlp" in Dense.model_fields
MLP = "mlp" if NEW else "body"
VOCABULARY = 101


def swiglu(width: int, **changes: Any) -> dict[str, Any]:
    """Return the settings of a SwiGLU body."""
    kind = {"kind": "gated", "activation": "silu"} if NEW else {"kind": "swiglu"}
    return kind | {"width": width} | changes


def gelu(width: int, **changes: Any) -> dict[str, Any]:
    """Return the settings of a two-matrix body with GELU."""
    kind = {"kind": "mlp", "activation": "gelu"} if NEW else {"kind": "gelu"}
    return kind | {"width": width} | changes


def dense(width: int) -> dict[str, Any]:
    """Return a dense feed-forward part."""
    return {"kind": "dense", MLP: swiglu(width)}


def moe(count: int, width: int, per_token: int, **changes: Any) -> dict[str, Any]:
    """Return a mixture of `count` SwiGLU experts."""
    experts = [{"count": count, MLP: swiglu(width)}]
    return {"kind": "moe", "experts": experts, "experts_per_token": per_token} | changes


def pack(count: int, body: dict[str, Any]) -> dict[str, Any]:
    """Return experts of one kind."""
    return {"count": count, MLP: body}


def decoder_settings(**changes: Any) -> DecoderSettings:
    """Return settings of a small decoder: two layers, 128 wide, 4 heads on 2."""
    base = {
        "layers": 2, "width": 128, "context": 256, "vocab_size": VOCABULARY,
        "attention": {"kind": "grouped", "heads": 4, "kv_heads": 2},
        "feedforward": dense(192), "head": {"tied": False},
        "initial": {"std": 0.08, "outputs": "plain"},
    }  # fmt: skip
    return DecoderSettings.model_validate(base | changes)


def kernel_settings(kind: str) -> Any:
    """Return the settings of an expert kernel."""
    experts = MixtureOfExperts.model_validate(moe(2, 8, 1, kernel=kind))
    return experts.kernel


def preset(name: str) -> dict[str, Any]:
    """Return the model of a preset at its full size."""
    model = resolve(name).settings.model.model_dump()
    return model | {"vocab_size": model["vocab_size"] or 50257}


_DRAWN = {"dropout": 0.0, "capacity_factor": None, "noise": {"kind": "none"}, "scope": "sequence"}


def calm(model: Any) -> Any:
    """Return a model's settings without what depends on how a batch is cut."""
    if isinstance(model, list | tuple):
        return [calm(each) for each in model]
    if not isinstance(model, dict):
        return model
    found = {name: calm(each) for name, each in model.items()}
    return found | {name: value for name, value in _DRAWN.items() if name in found}


def build(settings: DecoderSettings, *, seed: int = 0) -> Decoder:
    """Return a decoder on the CPU in float32, in evaluation mode, nothing in it zero or one."""
    generator = torch.Generator().manual_seed(seed)
    decoder = settings.build(generator)
    with torch.no_grad():
        for parameter in decoder.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return decoder.eval()


def forward(
    decoder: Any, tokens: Tensor, targets: Tensor | None = None, documents: Tensor | None = None
) -> Output:
    """Run a decoder, over packed documents if those are given."""
    return decoder(tokens, targets, ForwardContext(documents=documents))


def loss_of(output: Any) -> Tensor:
    """Return the cross-entropy summed over all positions, and the routers' own terms."""
    loss = output.losses.sum()
    for each in routing_of(output):
        for term in ("auxiliary", "z"):
            loss = loss + (getattr(each, term, None) or 0.0)
    return loss


def routing_of(output: Any) -> Any:
    """Return what the routed layers tell of themselves."""
    return output.router_stats


def set_checkpointing(decoder: Decoder) -> None:
    """Let the decoder keep only the blocks' inputs for the backward pass."""
    known = ("activation_checkpointing", "recompute")
    setattr(decoder, next(name for name in known if hasattr(decoder, name)), True)


def run_settings(text: str, model: dict[str, Any], **train: Any) -> dict[str, Any]:
    """Return the settings of a run over a text file, read character by character."""
    return {
        "seed": 7, "tokenizer": {"kind": "characters"},
        "data": {"source": text, "valid_fraction": 0.1, "split": "tail"},
        "model": model,
        "train": {
            "evaluate_every": 0, "checkpoint_every": 0, "sample_every": 0,
            "optimizer": {"kind": "adamw", "learning_rate": 3e-4}, **train,
        },
    }  # fmt: skip
