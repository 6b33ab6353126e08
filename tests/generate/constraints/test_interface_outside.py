"""A constraint from outside the package, in one file, plugs in by its import path."""

from __future__ import annotations

import sys
import textwrap

import pytest
import torch

from coterie.generate import Engine, Request, SamplingSettings
from coterie.generate.constraints import mask_all
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
            if self.texts[0] == "!":
                raise LookupError("no such turn")
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


def make_engine() -> Engine:
    tokenizer = Characters().build(["abc"])
    model = {"layers": 1, "width": 8, "context": 16, "vocab_size": tokenizer.vocab_size,
             "attention": {"kind": "grouped", "heads": 2}}  # fmt: skip
    torch.manual_seed(0)
    return Engine(DecoderSettings.model_validate(model).build(), tokenizer)


def test_a_text_takes_turns(my_lab):
    engine = make_engine()
    sampling = SamplingSettings.model_validate(
        {"max_tokens": 5, "constraints": [{"kind": my_lab}], "temperature": 1.0}
    )
    assert [each.text for each in engine.generate_samples("c", 2, sampling)] == ["ababa"] * 2


def test_one_that_cannot_be_built_ends_its_own_text_and_is_named(my_lab):
    asked = [
        Request("c", SamplingSettings.model_validate({"max_tokens": 2, "constraints": those}))
        for those in ([], [{"kind": my_lab, "texts": ["!", "b"]}], [])
    ]
    first, failed, second = make_engine().generate_many(asked)
    assert isinstance(failed.error, LookupError)
    assert failed.error.__notes__ == ["The constraint Turns failed."]
    assert first.tokens == second.tokens
    assert len(first.tokens) == 2


@pytest.mark.parametrize("given", [None, torch.zeros(1)])
def test_what_is_no_logits_is_refused(given):
    class Careless:
        def mask(self, logits):
            return given

        accept = rollback = mask

    with pytest.raises(TypeError, match="mask gave no 3 logits") as raised:
        mask_all([Careless()], torch.zeros(3))
    assert raised.value.__notes__ == ["The constraint Careless failed."]
