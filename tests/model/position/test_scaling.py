"""Scalings of rotary positions against transformers, in packed texts and compiled."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import warnings

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from coterie.foundation.settings import kind_of, members
from coterie.model import Decoder, DecoderSettings
from coterie.model.geometry import text_lengths
from coterie.model.position import RotaryPosition, Span
from coterie.model.position.scaling import Scaling, YarnScaling

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

ORIGINAL, CONTEXT = 16, 64
# Our settings, and the parameters that mean the same to transformers.
SCALINGS = {
    "none": ({}, {"rope_type": "default"}),
    "linear": ({"factor": 4}, {"rope_type": "linear", "factor": 4.0}),
    "ntk": ({"factor": 4}, {"rope_type": "default", "rope_theta": 1e4 * 4 ** (16 / 14)}),
    "dynamic": (
        {"factor": 3, "original_context": ORIGINAL}, {"rope_type": "dynamic", "factor": 3.0},
    ),
    "yarn": (
        {"factor": 4, "original_context": ORIGINAL, "beta_fast": 2, "beta_slow": 0.25},
        {"rope_type": "yarn", "factor": 4.0, "beta_fast": 2, "beta_slow": 0.25},
    ),
    "llama3": (
        {"factor": 8, "original_context": ORIGINAL, "low_frequency_factor": 0.5,
         "high_frequency_factor": 2},
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 0.5, "high_freq_factor": 2.0},
    ),
}  # fmt: skip
every_scaling = pytest.mark.parametrize("kind", SCALINGS)
YARN = {"rope_type": "yarn", "factor": 40.0, "rope_theta": 1e4}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "rope_theta": 5e5}


def rotary(kind: str, **changes) -> RotaryPosition:
    return RotaryPosition.model_validate(
        {"scaling": {"kind": kind, **SCALINGS[kind][0]}, **changes}
    )


def llama(kind: str) -> LlamaConfig:
    """Return the configuration of a tiny Llama whose heads have 16 channels."""
    parameters = {"rope_theta": 1e4} | SCALINGS[kind][1]
    if kind in ("yarn", "llama3"):
        parameters["original_max_position_embeddings"] = ORIGINAL
    return LlamaConfig(
        vocab_size=23, hidden_size=32, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=ORIGINAL if kind == "dynamic" else CONTEXT,
        rope_parameters=parameters, attn_implementation="eager",
    )  # fmt: skip


def test_every_scaling_is_held_against_the_reference():
    assert {kind_of(member) for member in members(Scaling)} == set(SCALINGS)


def frequencies(position: RotaryPosition, channels: int, length: int) -> torch.Tensor:
    found = position.scaling.frequencies(position.theta, channels, torch.tensor([float(length)]))
    assert found.dtype == torch.float64
    return found.flatten()


@every_scaling
@pytest.mark.parametrize("length", [10, ORIGINAL, 50])
def test_frequencies_and_factors_equal_transformers(kind, length):
    position, config = rotary(kind), llama(kind)
    if kind in ("none", "ntk"):
        base = config.rope_parameters["rope_theta"]
        expected, factor = base ** -(torch.arange(0, 16, 2, dtype=torch.float64) / 16), 1.0
    else:
        expected, factor = ROPE_INIT_FUNCTIONS[SCALINGS[kind][1]["rope_type"]](
            config, "cpu", seq_len=length
        )
    found = frequencies(position, 16, length)
    torch.testing.assert_close(found, expected.double(), rtol=1e-6, atol=0)  # theirs are float32
    assert position.scaling.turn_scale == pytest.approx(factor, rel=1e-12)


@pytest.mark.parametrize(
    ("settings", "parameters"),
    [
        ({"kind": "yarn", "factor": 40, "original_context": 4096}, YARN),
        # So long a context that the last pair turns more than once: the ramp ends beyond it.
        ({"kind": "yarn", "factor": 40, "original_context": 131_072}, YARN),
        ({"kind": "yarn", "factor": 40, "original_context": 131_072, "truncate": False},
         YARN | {"truncate": False}),
        ({"kind": "yarn", "factor": 40, "original_context": 4096, "truncate": False},
         YARN | {"truncate": False}),
        ({"kind": "yarn", "factor": 40, "original_context": 4096, "attention_factor": 1.25},
         YARN | {"attention_factor": 1.25}),
        ({"kind": "llama3", "factor": 8, "original_context": 8192},
         LLAMA3 | {"low_freq_factor": 1.0, "high_freq_factor": 4.0}),
    ],
)  # fmt: skip
def test_published_sizes_equal_transformers(settings, parameters):
    config = LlamaConfig(
        hidden_size=512, num_attention_heads=4, max_position_embeddings=131072,
        rope_parameters=parameters | {
            "original_max_position_embeddings": settings["original_context"]
        },
    )  # fmt: skip
    expected, factor = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config, "cpu")
    position = RotaryPosition.model_validate(
        {"theta": parameters["rope_theta"], "scaling": settings}
    )
    found = frequencies(position, 128, 100_000)
    torch.testing.assert_close(found, expected.double(), rtol=4e-6, atol=0)
    assert position.scaling.turn_scale == pytest.approx(factor, rel=1e-12)


@pytest.mark.parametrize(
    ("mscale", "all_dim"), [(1.0, 1.0), (0.707, 0.707), (1.0, 0.5), (1.0, 0.0)]
)
def test_both_of_deepseeks_sharpnesses_can_be_said(mscale, all_dim):
    scaling = YarnScaling.from_mscale(40.0, 4096, mscale, all_dim)
    config = LlamaConfig(
        hidden_size=64, num_attention_heads=1, max_position_embeddings=163840,
        rope_parameters=YARN | {"mscale": mscale, "mscale_all_dim": all_dim,
                                "original_max_position_embeddings": 4096},
    )  # fmt: skip
    _, factor = ROPE_INIT_FUNCTIONS["yarn"](config, "cpu")
    assert scaling.turn_scale == pytest.approx(factor, rel=1e-12)
    whole = 0.1 * all_dim * math.log(40) + 1 if all_dim else 1.0
    assert scaling.logit_scale == pytest.approx(whole**2, rel=1e-12)
    again = scaling.extended(4096, 4096 * 10)
    other = YarnScaling.from_mscale(10.0, 4096, mscale, all_dim)
    assert again.logit_scale == pytest.approx(other.logit_scale, rel=1e-12)
    assert again.turn_scale == pytest.approx(other.turn_scale, rel=1e-12)


def copy_llama(model: nn.Module, decoder: Decoder) -> None:
    """Copy the weights of a Llama of transformers into a decoder."""
    theirs = model.state_dict()
    names = {"embedding.weight": "model.embed_tokens.weight", "norm.weight": "model.norm.weight",
             "head.weight": "lm_head.weight"}  # fmt: skip
    for layer in range(len(decoder.blocks)):
        ours, other = f"blocks.{layer}.", f"model.layers.{layer}."
        for name in ("query", "key", "value", "output"):
            names[f"{ours}attention.{name}"] = f"{other}self_attn.{name[0]}_proj.weight"
        names[f"{ours}attention_norm.weight"] = f"{other}input_layernorm.weight"
        names[f"{ours}feedforward_norm.weight"] = f"{other}post_attention_layernorm.weight"
        names[f"{ours}feedforward.mlp.down"] = f"{other}mlp.down_proj.weight"
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            if name.endswith(("mlp.gate", "mlp.up")):
                layer, part = name.split(".")[1], name.rsplit(".", 1)[1]
                parameter.copy_(theirs[f"model.layers.{layer}.mlp.{part}_proj.weight"])
            else:
                parameter.copy_(theirs[names[name]])


def like_llama(kind: str) -> Decoder:
    return DecoderSettings.model_validate({
        "layers": 2, "width": 32, "context": CONTEXT, "vocab_size": 23,
        "position": rotary(kind).model_dump(), "norm": {"kind": "rms", "epsilon": 1e-6},
        "attention": {"kind": "grouped", "heads": 2},
        "feedforward": {"kind": "dense", "mlp": {"kind": "gated", "width": 24}},
    }).build().eval()  # fmt: skip


@every_scaling
@pytest.mark.parametrize("length", [9, CONTEXT])
def test_whole_models_equal_transformers_beyond_the_original_context(kind, length):
    torch.manual_seed(0)
    model, decoder = LlamaForCausalLM(llama(kind)).eval(), like_llama(kind)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3) if parameter.ndim > 1 else parameter.uniform_(0.5, 1.5)
        copy_llama(model, decoder)
        tokens = torch.randint(23, (2, length))
        theirs, ours = model(tokens).logits, decoder(tokens).logits
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    assert theirs.abs().max() > 1


@every_scaling
@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_packed_documents_are_turned_as_if_alone(kind, layout):
    part = rotary(kind, layout=layout).build(32, CONTEXT)
    lengths = [(5, 40), (20, 3, 22), (45,)]
    at = torch.stack([torch.cat([torch.arange(n) for n in row]) for row in lengths])
    x = torch.randn(3, 45, 2, 16)
    span = Span(0, 45, x.device, at, text_lengths=text_lengths(at, None))
    packed = part.rotation(span)(x)
    for row, parts in enumerate(lengths):
        start = 0
        for length in parts:
            piece = x[row : row + 1, start : start + length]
            alone = part.rotation(Span(0, length, x.device))(piece)
            found = packed[row : row + 1, start : start + length]
            torch.testing.assert_close(found, alone, rtol=0, atol=1e-6)
            start += length


def test_dynamic_tables_do_not_pile_up_and_short_texts_stay_as_trained():
    part, plain = rotary("dynamic").build(32, CONTEXT), rotary("none").build(32, CONTEXT)
    x = torch.randn(1, 40, 2, 16)
    for length in range(1, 41):
        span = Span(0, length, x.device)
        turned, trained = (each.rotation(span)(x[:, :length]) for each in (part, plain))
        assert torch.equal(turned, trained) == (length <= ORIGINAL), length
    assert part.stable == ORIGINAL
    assert len(part._tables) == len(part._longer) == 1
    with pytest.raises(AssertionError, match="may come from a cache"):
        part.rotation(Span(ORIGINAL, 1, x.device))(x[:, :1])


# In a process of its own: checks of shapes, which tests switch on, cannot be compiled.
COMPILES = """
import json, sys, torch
from coterie.model.position import RotaryPosition, Span

torch.set_num_threads(1)
for scaling in json.loads(sys.argv[1]):
    torch._dynamo.reset()
    part = RotaryPosition.model_validate({"scaling": scaling}).build(32, 64)
    turn = lambda x: part.rotation(Span(0, x.shape[1], x.device))(x) * 2
    compiled = torch.compile(turn, backend="aot_eager", dynamic=False)
    for length in (9, 40):
        x = torch.randn(2, length, 2, 16, requires_grad=True)
        torch.testing.assert_close(compiled(x), turn(x))
        compiled(x).square().sum().backward()
        assert x.grad.isfinite().all()
    print(scaling["kind"])
"""


@pytest.mark.exhaustive  # the contract compiles a decoder with positions
def test_compiles_within_and_beyond_the_original_context():
    kinds = ["dynamic"]  # the one whose tables are made anew in the midst of a pass
    scalings = [{"kind": kind, **SCALINGS[kind][0]} for kind in kinds]
    done = subprocess.run(
        [sys.executable, "-c", COMPILES, json.dumps(scalings)], text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == kinds


@pytest.mark.parametrize(
    ("scaling", "says"),
    [
        ({"kind": "yarn", "factor": 0.5, "original_context": 8}, "greater than or equal to 1"),
        ({"kind": "yarn", "factor": 2, "original_context": 8, "beta_slow": 64}, "beta_slow"),
        ({"kind": "llama3", "factor": 2, "original_context": 8, "low_frequency_factor": 4},
         "must be below"),
        ({"kind": "dynamic", "factor": 2}, "original_context"),
        ({"kind": "yarm"}, "did you mean “yarn”"),
    ],
)  # fmt: skip
def test_refuses_scalings_that_make_no_sense(scaling, says):
    with pytest.raises(ValidationError, match=says):
        RotaryPosition.model_validate({"scaling": scaling})
