"""Values that cannot be, or that nothing computes, are refused by name."""

from __future__ import annotations

import pytest

from coterie.exchange.gguf import import_file
from tests.exchange.gguf.conftest import refusal


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"block_count": None}, "llama.block_count is missing; it must be a whole number"),
        ({"attention.layer_norm_rms_epsilon": -1.0}, "must be a number above 0"),
        ({"attention.sliding_window": 4}, "no part of the decoder computes"),
        ({"logit_scale": 0.5}, "logit_scale is 0.5"),
        ({"attention.head_count": [2, 4]}, "differs from layer to layer"),
        ({"rope.scaling.type": "longrope", "rope.scaling.factor": 2.0}, "scaling “longrope”"),
        ({"block_count": 60000}, "block_count is 60,000, for 11 tensors in all"),
        ({"feed_forward_length": 1 << 31}, "a whole number from 1 to 1,073,741,824"),
        ({"expert_count": 1 << 20, "expert_used_count": 2}, "a whole number from 0 to 65,536"),
        ({"embedding_length": 1 << 30}, "has shape [272, 16] instead of [272, 1073741824]"),
    ],
)
def test_values_that_cannot_be(values, words, write):
    assert words in refusal(write(values=values))


def test_values_nobody_reads_are_mentioned(write):
    notes = import_file(write(values={"some_future_thing": 3})).notes
    assert "llama.some_future_thing is not read" in notes


WRONG = {
    "embedding_length": ["x", 1.5, True, ["x"], [16, 32]],
    "attention.layer_norm_rms_epsilon": ["x", True, float("nan"), float("inf"), ["x"]],
    "rope.freq_base": ["x", 0.0],
    "rope.scaling.factor": ["x", -2.0, True],
    "rope.scaling.type": [3, "yarns", True],
    "block_count": [0, "1"],
}


@pytest.mark.parametrize(
    ("name", "value"),
    [pytest.param(n, v, id=f"{n} {v!r}") for n, values in WRONG.items() for v in values],
)  # fmt: skip
def test_values_of_another_type_are_refused_by_name(name, value, write):
    assert name in refusal(write(values={name: value}))


def test_what_a_terminal_would_obey_is_written_out(write):
    words = refusal(write("lama\x1b[2J"))
    assert "\x1b" not in words
    assert "lama\\x1b[2J" in words
    notes = import_file(write(values={"\x1b[2Jx": 3})).notes
    assert any("\\x1b[2Jx is not read" in note for note in notes), notes
    assert all(note.isprintable() for note in notes)


@pytest.mark.parametrize(
    ("scaling", "words"),
    [({"type": "yarn", "factor": 4.0, "yarn_beta_fast": 16.0, "yarn_beta_slow": 269.0},
      "beta_slow=269 must not be above beta_fast=16"),
     ({"type": "linear", "factor": 0.5}, "greater than or equal to 1")],
)  # fmt: skip
def test_scalings_that_contradict_themselves_are_refused(scaling, words, write):
    assert words in refusal(write(values={f"rope.scaling.{n}": v for n, v in scaling.items()}))
