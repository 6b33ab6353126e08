"""Stop texts and half characters, wherever tokens end."""

import itertools

import pytest
import torch

from coterie.generate import Request, SamplingSettings
from coterie.generate.text import Text
from coterie.tokenizer.raw_bytes import Bytes

WORDS = "aÄ€🎭b"
BOUNDS = list(itertools.combinations(range(len(WORDS) + 1), 2))


def say(raw: bytes, **sampling):
    tokenizer = Bytes().build()
    values = {"temperature": 0, "max_tokens": len(raw)} | sampling
    request = Request("x", SamplingSettings.model_validate(values))
    text, pieces = Text(request, [120], tokenizer), []
    for byte in raw:
        logits = torch.zeros(tokenizer.vocab_size)
        logits[byte] = 9.0
        pieces.append(text.advance(logits))
        if text.finished:
            break
    return pieces


@pytest.mark.parametrize(("start", "stop"), BOUNDS)
def test_a_stop_text_never_shows_wherever_it_begins_and_ends(start, stop):
    pieces = say(WORDS.encode(), stop=[WORDS[start:stop], "zz"])
    assert "".join(piece.text for piece in pieces) == WORDS[:start]
    assert pieces[-1].finish_reason == "stop"
    assert len(pieces) == len(WORDS[:stop].encode())


@pytest.mark.parametrize("end", range(1, len(WORDS.encode()) + 1))
def test_what_might_have_become_a_stop_text_shows_at_the_end(end):
    raw = WORDS.encode()[:end]
    pieces = say(raw, stop=[WORDS + "!"])
    assert [piece.text for piece in pieces[:-1]] == [""] * (end - 1)
    assert pieces[-1].text == raw.decode(errors="replace")
    assert pieces[-1].finish_reason == "length"
