"""Every decoder of the `tokenizers` library, streamed: pieces add up, and neighbours count."""

from __future__ import annotations

import json
import random
import sys

import pytest
import tokenizers
from tokenizers import decoders, models

from coterie.tokenizer.decoding import Recipe, TextDecoder
from coterie.tokenizer.stream import StreamDecoder, pieces_of
from coterie.tokenizer.subword import SubwordTokenizer

PIECES = [
    "▁", "▁and", "ba", "▁ba", "##s", "##", "a</w>", "b</w>", "é", " ", "  ", "x ", "' ", "'s", ".",
    "!", "<0xC3>", "<0xA9>", "<0xE2>", "<0x82>", "<0xAC>", "<0x41>", "<0xFF>", "|", "<pad>", "",
    "日本", "Ġb", "Ã", "©", "n't", "ab", "▁▁",
]  # fmt: skip


def chain(*steps):
    return decoders.Sequence(list(steps))


def llama(blanks=1):
    return chain(
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
        decoders.Strip(" ", blanks, 0),
    )  # fmt: skip


DECODERS = {
    "none": None,
    "ByteLevel": decoders.ByteLevel(),
    "Metaspace": decoders.Metaspace(),
    "Metaspace never": decoders.Metaspace(prepend_scheme="never"),
    "Metaspace first": decoders.Metaspace(prepend_scheme="first"),
    "WordPiece": decoders.WordPiece(),
    "WordPiece as it is": decoders.WordPiece(cleanup=False),
    "BPEDecoder": decoders.BPEDecoder(),
    "CTC": decoders.CTC(),
    "CTC as it is": decoders.CTC(cleanup=False),
    "Fuse": decoders.Fuse(),
    "ByteFallback": decoders.ByteFallback(),
    "Strip": decoders.Strip(" ", 1, 0),
    "Replace": decoders.Replace("▁", " "),
    "Llama": llama(),
    "Llama, two blanks": llama(2),
    "Gemma": chain(decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()),
    "bytes, then blanks": chain(decoders.ByteFallback(), decoders.Metaspace()),
    "bytes, then Strip": chain(decoders.ByteFallback(), decoders.Strip("é", 1, 0)),
    "the whole replaced": chain(decoders.Fuse(), decoders.Replace("ba", "Z")),
    "suffixes, fused": chain(decoders.BPEDecoder(), decoders.Fuse()),
    "suffixes, replaced": chain(decoders.BPEDecoder(), decoders.Replace("a", "q")),
    "byte level, stripped": chain(decoders.ByteLevel(), decoders.Strip(" ", 1, 0)),
    "words, stripped": chain(decoders.WordPiece(), decoders.Fuse(), decoders.Strip(" ", 1, 0)),
    "chains in chains": chain(
        chain(decoders.Replace("▁", " "), decoders.ByteFallback()), decoders.Fuse()
    ),
}


def made(decoder) -> SubwordTokenizer:
    """Return a tokenizer of these pieces."""
    rules = tokenizers.Tokenizer(models.BPE({piece: n for n, piece in enumerate(PIECES)}, []))
    if decoder is not None:
        rules.decoder = decoder
    return SubwordTokenizer.from_json(json.loads(rules.to_str()))


def numbers(*pieces: str) -> list[int]:
    return [PIECES.index(piece) for piece in pieces]


@pytest.mark.parametrize("name", DECODERS)
def test_pieces_add_up_and_go_on_from_any_place(name):
    """Random tokens: stream = whole = the library's text, and any beginning plus its rest too."""
    tokenizer = made(DECODERS[name])
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    for _ in range(150):
        tokens = [chance.randrange(tokenizer.vocab_size) for _ in range(chance.randrange(14))]
        whole = tokenizer.decode(tokens)
        assert "".join(pieces_of(tokenizer, tokens)) == whole, (seed, tokens)
        theirs = tokenizer._rules.decode(tokens, skip_special_tokens=False)
        assert whole == theirs or "\ufffd" in theirs, (seed, tokens)
        at = chance.randrange(len(tokens) + 1)
        begun, stream = tokenizer.decode(tokens[:at]), StreamDecoder(tokenizer, tokens[:at])
        rest = "".join([*map(stream.push, tokens[at:]), stream.finish()])
        assert begun + rest == whole or not whole.startswith(begun), (seed, at)


def test_a_blank_before_a_word_is_stripped_at_the_very_beginning_alone():
    tokenizer = made(llama())
    assert tokenizer.decode(numbers("▁ba", "▁and")) == "ba and"
    assert pieces_of(tokenizer, numbers("▁ba", "▁and")) == ["ba", " and"]
    stream = StreamDecoder(tokenizer, after=numbers("▁ba"))
    assert stream.push(PIECES.index("▁and")) == " and"
    assert StreamDecoder(tokenizer).push(PIECES.index("▁and")) == "and"


@pytest.mark.parametrize("name", ["Llama", "Gemma", "ByteFallback"])
def test_bytes_wait_for_their_character_and_only_broken_ones_are_lost(name):
    tokenizer = made(DECODERS[name])
    assert pieces_of(tokenizer, numbers("<0xC3>", "<0xA9>")) == ["", "é"]
    assert pieces_of(tokenizer, numbers("<0xE2>", "<0x82>", "<0xAC>")) == ["", "", "€"]
    broken = numbers("<0xC3>", "<0xA9>", "<0xFF>", "<0x41>")
    assert tokenizer.decode(broken) == "é\ufffdA"
    assert pieces_of(tokenizer, broken) == ["", "é", "\ufffd", "A"]
    assert pieces_of(tokenizer, numbers("<0xC3>")) == ["\ufffd"]
    assert pieces_of(tokenizer, numbers("<0xC3>", "ba")) == ["", "\ufffdba"]


def test_the_blank_after_a_word_comes_when_the_next_word_does():
    tokenizer = made(decoders.BPEDecoder())
    assert pieces_of(tokenizer, numbers("a</w>", "b</w>", "ab")) == ["a", " b", " ab"]
    stream = StreamDecoder(tokenizer, after=numbers("a</w>"))
    assert stream.push(PIECES.index("b</w>")) == " b"


@pytest.mark.parametrize("tail", ["", "xx", "yx"])
@pytest.mark.parametrize("head", ["", "xx", "xxxx", "yx"])
def test_both_ends_are_stripped(head, tail):
    """The library itself breaks down where a text is shorter than what is to be stripped."""
    strip = {"type": "Strip", "content": "x", "start": 2, "stop": 1}
    recipe = Recipe({"type": "Sequence", "decoders": [{"type": "Fuse"}, strip]})
    text = f"{head}ab{tail}"
    decoder = TextDecoder(lambda token: text[token], recipe.steps())
    found = "".join([*map(decoder.push, range(len(text))), decoder.finish()])
    assert found == text.removeprefix("xx").removesuffix("x")


def test_blanks_are_cleaned_up_as_those_of_the_whole():
    words = [" ", " .", "do", " n't", " '", " ' ", "s", " 're", "!", " ve", " ?", " ,", "n't"]
    chance = random.Random(5)
    for _ in range(500):
        chosen = [chance.choice(words) for _ in range(9)]
        steps = TextDecoder(chosen.__getitem__, Recipe({"type": "Fuse"}).cleaned().steps())
        found = "".join([*map(steps.push, range(9)), steps.finish()])
        wanted = "".join(chosen)
        for old in (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're"):
            wanted = wanted.replace(old, old.strip())
        assert found == wanted


def test_a_token_costs_the_same_in_a_long_text():
    """Lines of Python that a token takes, early and late in the text."""
    stream = StreamDecoder(made(llama()))
    costs = []

    def count(frame, event, argument):
        costs[-1] += 1
        return count

    for token in numbers("▁and", "<0xC3>", "<0xA9>", "ba", "<0xFF>", "▁▁") * 100:
        costs.append(0)
        before = sys.gettrace()
        sys.settrace(count)
        stream.push(token)
        sys.settrace(before)
    assert max(costs[300:]) <= max(costs[12:300])
