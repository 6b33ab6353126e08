"""Every named pretokenizer survives an export and an import."""

from __future__ import annotations

import pytest

from coterie.exchange.gguf.pretokenizers import PRETOKENIZERS
from coterie.exchange.gguf.vocabulary import read_vocabulary, write_vocabulary
from coterie.tokenizer.conventions import Conventions
from coterie.tokenizer.special import END_OF_TEXT
from coterie.tokenizer.subword import SubwordTokenizer
from tests.exchange.gguf.conftest import HARD, trained


@pytest.mark.parametrize("name", PRETOKENIZERS)
def test_byte_level_merges_travel_both_ways(name):
    words = PRETOKENIZERS[name]
    rules = trained(words, END_OF_TEXT, "<|im_start|>", "<|im_end|>")
    conventions = Conventions((END_OF_TEXT, "<|im_end|>"), "<|im_start|>", "{{ messages }}")
    ours = SubwordTokenizer(rules, conventions=conventions)
    said = write_vocabulary(ours, ours.vocab_size + 5)
    assert PRETOKENIZERS[said["tokenizer.ggml.pre"]].patterns == words.patterns
    assert said["tokenizer.ggml.eos_token_id"] == ours.end_of_text
    assert len(said["tokenizer.ggml.tokens"]) == ours.vocab_size + 5
    back = read_vocabulary(said)
    assert back.encode(HARD) == ours.encode(HARD)
    assert back.decode(ours.encode(HARD)) == HARD
    assert back.conventions == conventions
    assert back.vocab_size == ours.vocab_size
