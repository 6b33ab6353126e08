"""Forbidden texts are never written, whatever the model prefers."""

import pytest
import torch

from coterie.foundation.errors import SettingsError, UserError
from coterie.foundation.layers import Layer, load_settings
from coterie.generate import Engine, SamplingSettings
from coterie.generate.constraints import Constraint, Forbid
from coterie.model import DecoderSettings
from coterie.tokenizer.characters import Characters

pytestmark = pytest.mark.any_device

TOKENIZER = Characters().build(["abc \n"])


def settings(**changes):
    return load_settings(SamplingSettings, [Layer("test", {"max_tokens": 12} | changes)]).settings


@pytest.fixture
def engine():
    torch.manual_seed(0)
    model = {"layers": 1, "width": 8, "context": 32, "vocab_size": TOKENIZER.vocab_size,
             "attention": {"kind": "grouped", "heads": 2}}  # fmt: skip
    decoder = DecoderSettings.model_validate(model).build()
    decoder.head.bias = torch.nn.Parameter(torch.zeros(TOKENIZER.vocab_size))
    decoder.head.bias.data[TOKENIZER.encode("b")] = 2.0  # it likes to write b
    return Engine(decoder, TOKENIZER)


def test_what_would_complete_a_text_is_masked():
    a, b, c = (TOKENIZER.encode(each)[0] for each in "abc")
    constraint = Forbid(texts=("ab", "c")).build(TOKENIZER, [c, b])
    assert isinstance(constraint, Constraint)
    logits = torch.zeros(TOKENIZER.vocab_size)

    def forbidden():
        return set((constraint.mask(logits) == -torch.inf).nonzero().flatten().tolist())

    assert forbidden() == {c}
    constraint.accept(a)
    assert forbidden() == {b, c}
    constraint.accept(a)
    constraint.accept(c)
    assert forbidden() == {c}
    constraint.rollback(1)
    assert forbidden() == {b, c}
    constraint.rollback(0)
    assert forbidden() == {b, c}
    assert not logits.any(), "the logits that were given stay as they are"


def test_a_text_may_not_be_completed_across_the_prompts_end():
    a, b = TOKENIZER.encode("ab")
    constraint = Forbid(texts=("ab",)).build(TOKENIZER, [b, a])
    assert constraint.mask(torch.zeros(TOKENIZER.vocab_size))[b] == -torch.inf


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_generation_never_writes_it(engine, temperature):
    free = [engine.generate("a", settings(seed=n, temperature=temperature)).text for n in range(4)]
    assert any("b" in text for text in free)
    for seed in range(4):
        bound = settings(seed=seed, temperature=temperature, constraints=[
            {"kind": "forbid", "texts": ["ab", "bb", "cb", " b", "\nb"]}])  # fmt: skip
        assert "b" not in engine.generate("a", bound).text


def test_nothing_left_to_choose_is_said(engine):
    everything = settings(constraints=[{"kind": "forbid", "texts": list("abc \n")}])
    for text in (engine.generate("a", everything).text,):
        assert text == "", "the end of the text is all that may follow"


def test_impossible_settings_are_refused(engine):
    with pytest.raises(UserError, match="cannot write “z”"):
        engine.generate("a", settings(constraints=[{"kind": "forbid", "texts": "z"}]))
    with pytest.raises(SettingsError, match="did you mean “forbid”"):
        settings(constraints=[{"kind": "forbidden", "texts": "z"}])
