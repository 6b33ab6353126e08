"""A constraint from outside the package, in one file, plugs in by its import path."""

from __future__ import annotations

import sys
import textwrap

import pytest
import torch

from coterie.generate import Engine, SamplingSettings
from coterie.model import DecoderSettings
from coterie.tokenizer.characters import Characters

pytestmark = pytest.mark.any_device

TURNS = """
    import torch

    from coterie.generate.constraints import ConstraintSettings


    class Turns(ConstraintSettings):
        kind: str
        texts: tuple[str, str] = ("a", "b")

        def build(self, tokenizer, prompt):
            return TakingTurns([tokenizer.encode(text)[0] for text in self.texts])


    class TakingTurns:
        def __init__(self, tokens):
            self.tokens, self.written = tokens, 0

        def mask(self, logits):
            allowed = torch.full_like(logits, -torch.inf)
            token = self.tokens[self.written % 2]
            allowed[token] = logits[token]
            return allowed

        def accept(self, token):
            self.written += 1

        def rollback(self, count):
            self.written -= count
"""


@pytest.fixture
def my_lab(tmp_path, monkeypatch):
    (tmp_path / "my_lab_turns.py").write_text(textwrap.dedent(TURNS))
    monkeypatch.syspath_prepend(tmp_path)
    yield "my_lab_turns:Turns"
    sys.modules.pop("my_lab_turns", None)


def test_a_text_takes_turns(my_lab):
    tokenizer = Characters().build(["abc"])
    model = {"layers": 1, "width": 8, "context": 16, "vocab_size": tokenizer.vocab_size,
             "attention": {"kind": "grouped", "heads": 2}}  # fmt: skip
    torch.manual_seed(0)
    engine = Engine(DecoderSettings.model_validate(model).build(), tokenizer)
    sampling = SamplingSettings.model_validate(
        {"max_tokens": 5, "constraints": [{"kind": my_lab}], "temperature": 1.0}
    )
    assert [each.text for each in engine.generate_samples("c", 2, sampling)] == ["ababa"] * 2
