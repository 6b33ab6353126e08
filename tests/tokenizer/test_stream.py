"""Tokens to text one at a time: nothing lost, no half characters."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.foundation.errors import TokenizerError
from coterie.tokenizer.settings import parse_tokenizer
from coterie.tokenizer.stream import StreamDecoder
from coterie.tokenizer.subword import SubwordTokenizer

BYTES = parse_tokenizer("bytes").build()
GPT2 = parse_tokenizer("gpt2").build()


@settings(max_examples=80, deadline=None)
@given(ids=st.lists(st.integers(0, 256), max_size=40))
def test_pieces_add_up_to_the_whole_even_for_broken_bytes(ids):
    stream = StreamDecoder(BYTES)
    assert "".join([*map(stream.push, ids), stream.finish()]) == BYTES.decode(ids)


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_whole_characters_only(text):
    stream = StreamDecoder(GPT2)
    pieces = [stream.push(token) for token in GPT2.encode(text)]
    assert "".join(pieces) == text
    assert stream.finish() == ""
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


def test_a_character_waits_for_its_last_byte():
    stream = StreamDecoder(BYTES)
    assert [stream.push(byte) for byte in "é→".encode()] == ["", "é", "", "", "→"]
    stream.push("é".encode()[0])
    assert stream.finish() == "\ufffd"


def test_decoders_that_look_at_neighbours_are_followed():
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    rules = tokenizers.Tokenizer(
        models.WordPiece({"[UNK]": 0, "hello": 1, "world": 2, "##s": 3, ",": 4}, unk_token="[UNK]")
    )
    rules.pre_tokenizer = pre_tokenizers.Whitespace()
    rules.decoder = decoders.WordPiece()
    kind = SubwordTokenizer.from_json(json.loads(rules.to_str()))
    stream = StreamDecoder(kind)
    pieces = [stream.push(token) for token in [1, 2, 3, 1]]
    assert pieces == ["hello", " world", "s", " hello"]
    assert stream.finish() == ""
    with pytest.raises(TokenizerError, match="outside"):
        stream.push(99)
