"""Our decoder with the settings of GPT-2 against the implementation in transformers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from coterie.model import Decoder, DecoderSettings, count

transformers = pytest.importorskip("transformers", reason="the test extra brings it")


def gpt2(layers: int, width: int, heads: int, context: int, vocab_size: int) -> DecoderSettings:
    """Return the settings of a GPT-2 of these sizes."""
    return DecoderSettings.model_validate({
        "layers": layers, "width": width, "context": context, "vocab_size": vocab_size,
        "position": "learned",
        "norm": {"kind": "layer", "epsilon": 1e-5},
        "attention": {"kind": "grouped", "heads": heads, "bias": True},
        "feedforward": {"kind": "dense", "mlp": {"kind": "mlp", "activation": "gelu_tanh",
                                                  "bias": True}},
        "head": {"tied": True},
    })  # fmt: skip


def copy_weights(source: dict[str, Tensor], decoder: Decoder) -> None:
    """Copy a transformers state into ours; its matrices are [in, out] and joined."""
    state = {
        "embedding.weight": source["transformer.wte.weight"],
        "position.weight": source["transformer.wpe.weight"],
        "norm.weight": source["transformer.ln_f.weight"],
        "norm.bias": source["transformer.ln_f.bias"],
    }
    for layer in range(len(decoder.blocks)):
        there, here = f"transformer.h.{layer}", f"blocks.{layer}"
        for norm, name in (("ln_1", "attention_norm"), ("ln_2", "feedforward_norm")):
            state[f"{here}.{name}.weight"] = source[f"{there}.{norm}.weight"]
            state[f"{here}.{name}.bias"] = source[f"{there}.{norm}.bias"]
        weights = source[f"{there}.attn.c_attn.weight"].T.chunk(3)
        biases = source[f"{there}.attn.c_attn.bias"].chunk(3)
        for name, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
            state[f"{here}.attention.{name}"] = weight
            state[f"{here}.attention.{name}_bias"] = bias
        for name, ours in (
            ("attn.c_proj", "attention.output"),
            ("mlp.c_fc", "feedforward.mlp.up"),
            ("mlp.c_proj", "feedforward.mlp.down"),
        ):
            state[f"{here}.{ours}"] = source[f"{there}.{name}.weight"].T
            state[f"{here}.{ours}_bias"] = source[f"{there}.{name}.bias"]
    decoder.load_state_dict(state)


@pytest.mark.parametrize(
    ("layers", "width", "heads", "context", "vocab_size"),
    [(3, 48, 4, 160, 97), (12, 768, 12, 1024, 503)],
    ids=["small", "full-architecture"],
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-8)])
def test_logits_equal_those_of_transformers(
    layers, width, heads, context, vocab_size, dtype, tolerance
):
    if width == 768 and dtype == torch.float64:
        layers = 2  # the depth is covered in float32
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_layer=layers, n_embd=width, n_head=heads, n_positions=context, vocab_size=vocab_size,
        attn_implementation="eager",
    )  # fmt: skip
    theirs = transformers.GPT2LMHeadModel(config).to(dtype).eval()
    with torch.no_grad():  # fresh weights are so small that errors could hide
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    ours = gpt2(layers, width, heads, context, vocab_size).build().to(dtype).eval()
    copy_weights(theirs.state_dict(), ours)
    for length in (9,) if width == 768 else (1, 7, 150):
        tokens = torch.randint(vocab_size, (2, length))
        with torch.no_grad():
            expected, logits = theirs(tokens).logits, ours(tokens).logits
        assert expected.abs().max() > 0.5
        torch.testing.assert_close(logits, expected, rtol=0, atol=tolerance)


def test_gpt2_has_as_many_parameters_as_published():
    # 124,439,808: openai/gpt-2's smallest model as transformers counts it, tied head once.
    settings = gpt2(12, 768, 12, 1024, 50257)
    assert count(settings).parameters == 124_439_808
    with torch.device("meta"):
        assert sum(p.numel() for p in settings.build().parameters()) == 124_439_808
