"""Byte-level BPE trained here, and files from elsewhere."""

from __future__ import annotations

import json

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers

from coterie.foundation.errors import TokenizerError
from coterie.tokenizer.bpe import BPE
from coterie.tokenizer.merges import fast_rules
from coterie.tokenizer.special import END_OF_TEXT
from coterie.tokenizer.subword import SubwordTokenizer

TEXT = "It is the east, and Juliet is the sun. Arise, fair sun, and kill the envious moon.\n" * 4

TRAINED = BPE(vocab_size=320, special_tokens=("<X>",)).build([TEXT])


@settings(max_examples=200, deadline=None)
@given(text=st.lists(st.sampled_from([*"Itheasn,.\n 'J", "é", "<X>", "the sun"])).map("".join))
def test_the_fast_way_gives_the_numbers_of_the_library(text):
    assert TRAINED._fast is not None
    expected = TRAINED._rules.encode(text, add_special_tokens=False).ids
    assert TRAINED.encode(text) == expected
    plain = TRAINED._plain.encode(text, add_special_tokens=False).ids
    assert TRAINED.encode(text, special=False) == plain


def test_the_fast_way_gives_the_numbers_of_the_library_on_random_merges():
    """Merges trained on noise overlap in every way that natural text avoids."""
    import random

    noise = random.Random(3)
    words = ["".join(noise.choices("ab", k=noise.randint(1, 12))) for _ in range(400)]
    trained = BPE(vocab_size=400).build([" ".join(words)])
    assert trained._fast is not None
    for _ in range(300):
        text = "".join(noise.choices("ab", k=noise.randint(1, 40)))
        assert trained.encode(text) == trained._rules.encode(text).ids


def test_merges_for_which_the_fast_way_would_differ_go_the_slow_way():
    description = TRAINED.to_json()
    assert fast_rules(description) is not None
    vocabulary, merges = description["model"]["vocab"], description["model"]["merges"]
    start = max(vocabulary.values()) + 10
    vocabulary.update({"zq": start, "qx": start + 1, "zqx": start + 2})
    merges += [["z", "q"], ["q", "x"], ["zq", "x"]]
    assert fast_rules(description) is not None
    # “zqx” can no longer be made from its own bytes: “z q” merges before “z qx” has its turn,
    # but merging by joined bytes would make it from “zq” and “x”.
    merges[-1] = ["z", "qx"]
    assert fast_rules(description) is None
    slow = SubwordTokenizer.from_json(description)
    assert slow.encode("zqx") == [start, vocabulary["x"]]


def test_runs_too_long_for_the_fast_way_still_work():
    text = "\n" * 1_050_000 + "x"
    assert TRAINED.decode(TRAINED.encode(text)) == text


def _from_rules(rules: tokenizers.Tokenizer) -> SubwordTokenizer:
    return SubwordTokenizer.from_json(json.loads(rules.to_str()))


def word_rules() -> tokenizers.Tokenizer:
    vocabulary = {"[UNK]": 0, "hello": 1, "world": 2, "##s": 3}
    rules = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    rules.pre_tokenizer = pre_tokenizers.Whitespace()
    rules.decoder = decoders.WordPiece()
    rules.enable_truncation(2)
    rules.enable_padding(length=9)
    return rules


def test_a_word_piece_file_joins_words_its_own_way():
    kind = _from_rules(word_rules())
    assert kind.unknown_token == 0
    assert kind.encode("hello worlds what") == [1, 2, 3, 0]  # neither cut off nor padded
    assert kind.decode([1, 2, 3]) == "hello worlds"
    assert not kind.joins_bytes
    assert kind.cut("hello\nworld", 11) is None
    assert kind.encode(END_OF_TEXT) == [kind.end_of_text] == [4]
    assert kind.token_bytes(2) == b"world"


def test_a_sentence_piece_like_file_keeps_blanks_and_bytes():
    vocabulary = [("<unk>", 0.0), ("▁he", -1.0), ("llo", -1.0), ("▁", -2.0), ("<0xC3>", -9.0)]
    rules = tokenizers.Tokenizer(models.Unigram(vocabulary, unk_id=0))
    rules.pre_tokenizer = pre_tokenizers.Metaspace()
    rules.decoder = decoders.Metaspace()
    kind = _from_rules(rules)
    assert kind.unknown_token == 0
    assert kind.decode(kind.encode("hello hello")) == "hello hello"
    assert kind.token_bytes(1) == b" he"
    assert kind.token_bytes(4) == b"\xc3"


def test_rules_that_rewrite_text_are_never_cut():
    rules = tokenizers.Tokenizer(models.BPE({"a": 0}, []))
    rules.normalizer = normalizers.Lowercase()
    rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    kind = _from_rules(rules)
    assert kind.cut("a\na" * 9, 20) is None
    assert kind._fast is None


def test_text_that_a_file_cannot_say_is_an_error_in_words():
    kind = _from_rules(tokenizers.Tokenizer(models.WordLevel({"a": 0}, unk_token="[UNK]")))
    with pytest.raises(TokenizerError, match="cannot encode"):
        kind.encode("b")
    with pytest.raises(TokenizerError, match="surrogate"):
        kind.encode("\udfff")


BROKEN = {
    "a normalizer that cannot be read": {
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    },
    "a normalizer that fails on a text": {
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": "BAAAAP////8="}
    },
    "a split into nothing": {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
    "a decoder that fails on a token": {
        "decoder": {"type": "Strip", "content": "a", "start": 0, "stop": 5}
    },
    "a decoder that fails on many tokens": {
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Fuse"},
                {"type": "Strip", "content": "a", "start": 3, "stop": 3},
            ],
        }
    },
    "a number beyond all": {"model": {"type": "BPE", "vocab": {"a": 1 << 31}, "merges": []}},
    "no tokens": {"model": {"type": "BPE", "vocab": {}, "merges": []}},
}


@pytest.mark.parametrize("changes", BROKEN.values(), ids=BROKEN)
def test_rules_that_break_the_library_are_refused_when_read(changes, capfd):
    """The library panics on these, some only when a text or a token reaches the broken part."""
    sound = json.loads(tokenizers.Tokenizer(models.BPE({"a": 0, "aa": 1}, [])).to_str())
    assert SubwordTokenizer.from_json(sound).encode("a") == [0]
    with pytest.raises(TokenizerError):
        SubwordTokenizer.from_json(sound | changes)
    assert capfd.readouterr().err == ""


def test_a_panic_in_use_is_an_error_in_words():
    rules = tokenizers.Tokenizer(models.BPE({"a": 0, "b": 1}, []))
    kind = _from_rules(rules)
    kind._rules.pre_tokenizer = pre_tokenizers.FixedLength(0)
    with pytest.raises(TokenizerError, match="cannot encode this text: chunk size"):
        kind.encode("ab")


@pytest.mark.parametrize("special", [True, False])
def test_special_tokens_are_plain_text_where_asked(special):
    """In the rules' own way and in the fast one."""
    rules = word_rules()
    rules.add_special_tokens(["<X>"])
    slow = _from_rules(rules)
    number = slow.special_tokens["<X>"]
    assert slow._fast is None
    assert (number in slow.encode("hello <X>", special=special)) == special
    assert (TRAINED.special_tokens["<X>"] in TRAINED.encode("a <X>", special=special)) == special
    assert TRAINED.decode(TRAINED.encode("a <X>", special=special)) == "a <X>"
