"""Byte-level BPE trained here."""

from __future__ import annotations

import pytest

from coterie.foundation.errors import TokenizerError
from coterie.tokenizer.bpe import BPE
from coterie.tokenizer.special import END_OF_TEXT

TEXT = "It is the east, and Juliet is the sun. Arise, fair sun, and kill the envious moon.\n" * 4


def test_training_leaves_special_tokens_out_of_the_merges():
    tagged = BPE(vocab_size=300, special_tokens=("<SPEAKER>",)).build(["<SPEAKER>" * 50 + "ab"])
    pieces = tagged.to_json()["model"]["vocab"]
    assert not any("SPE" in piece for piece in pieces)
    assert tagged.vocab_size == 258  # nothing else to merge: 256 bytes and 2 special tokens


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(TokenizerError, match="no room"):
        BPE(vocab_size=257, special_tokens=("<X>",)).build([TEXT])
    with pytest.raises(TokenizerError, match="no text"):
        BPE(vocab_size=300).build(["", END_OF_TEXT])
    with pytest.raises(TokenizerError, match="surrogate"):
        BPE(vocab_size=300).build(["a\udfffb"])
