"""What the modules guess is what they say of the whole text, whatever was guessed before."""

from __future__ import annotations

import pytest
import torch

from coterie.foundation.errors import UserError
from coterie.generate import Engine, SamplingSettings
from coterie.generate.speculation import Controller, Modules, MTPSpeculation
from coterie.model import DecoderSettings
from coterie.tokenizer.settings import Characters

pytestmark = pytest.mark.any_device

NGRAM = {"embedding": {"kind": "ngram", "orders": [2, 3], "rows": 64, "dim": 4}}
OTHERS = [{}, NGRAM, {"position": {"kind": "learned"}}]
DEPTHS = [{"depth": 2}, {"depth": 1}, {"depth": 3, "normalised": True}]
WAYS = [
    pytest.param(mtp, other, marks=[] if row == column else pytest.mark.exhaustive)
    for row, mtp in enumerate(DEPTHS)
    for column, other in enumerate(OTHERS)
]


def make_decoder(mtp, **changes):
    values = {"layers": 2, "width": 16, "context": 64, "vocab_size": 11, "mtp": mtp}
    values |= {"attention": {"kind": "grouped", "heads": 2}, "initial": {"std": 0.4}} | changes
    decoder = DecoderSettings.model_validate(values).build(torch.Generator().manual_seed(1))
    return decoder.double().eval()


def states_of(decoder, tokens):
    """Return what the last block made of a text."""
    seen = []
    handle = decoder.blocks[-1].register_forward_hook(lambda m, given, made: seen.append(made[0]))
    decoder(torch.tensor([tokens]))
    handle.remove()
    return seen[0][0]


@pytest.mark.parametrize(("mtp", "changes"), WAYS)
@torch.inference_mode()
def test_guesses_are_those_of_the_modules_read_anew(mtp, changes):
    decoder, generator = make_decoder(mtp, **changes), torch.Generator().manual_seed(5)
    text = torch.randint(11, (9,), generator=generator).tolist()
    drafter, known = Modules(decoder, 5), 0
    for accepted in (2, 1, 4, 3, 1, 6):
        whole = states_of(decoder, text[:-1])
        most = min(5, accepted + 1)
        guesses = drafter.draft(text, most, lambda: (whole[known:], known == 0))  # noqa: B023
        known = len(whole)
        for number in range(min(most, mtp["depth"])):  # the module reads the text and the guesses
            logits = decoder.predict_mtp(torch.tensor([text + guesses[:number]]))[number]
            assert int(logits[0, len(whole) - 1].argmax()) == guesses[number]
        assert len(guesses) == most
        text += [*guesses[: accepted - 1], 3][:accepted]
        text += torch.randint(11, (accepted - len(guesses[: accepted - 1]) - 1,)).tolist()


def test_as_many_are_guessed_as_there_is_room_for():
    decoder, text = make_decoder({"depth": 1}), [1, 2, 3]
    with torch.inference_mode():
        states = states_of(decoder, text[:-1])
        assert Modules(decoder, 4).draft(text, 4, lambda: (None, True)) == []
        assert len(Modules(decoder, 4).draft(text, 2, lambda: (states, True))) == 2
        assert len(Modules(decoder, 3).draft(text, 9, lambda: (states, True))) == 3


def test_a_module_that_is_right_saves_calls(monkeypatch):
    """The decoder repeats one token for ever, and so does a module that looks at the head alone."""
    monkeypatch.setattr(Controller, "wants", True)
    monkeypatch.setattr(Controller, "note", lambda *given, **named: None)
    tokenizer = Characters().build(["abcdefgh"])
    decoder = make_decoder({"depth": 1}, vocab_size=tokenizer.vocab_size, head={"bias": True})
    assert decoder.head.bias is not None
    with torch.no_grad():
        decoder.head.bias.zero_()[tokenizer.encode("c")[0]] = 1e3
    calls = []
    decoder.register_forward_pre_hook(lambda module, given: calls.append(given))
    values = {"temperature": 0, "max_tokens": 11, "speculation": {"kind": "mtp", "tokens": 4}}
    made = Engine(decoder, tokenizer).generate("ab", SamplingSettings.model_validate(values))
    assert made.text == "c" * 11
    assert made.drafted == 8
    assert len(calls) == 3


def test_a_model_without_modules_is_refused():
    with pytest.raises(UserError, match="this one has none") as error:
        MTPSpeculation().build(make_decoder(None))
    assert "speculation=lookup" in str(error.value.hint)
