"""Which byte-level rules give every text back, so that a store's text can be counted again."""

from __future__ import annotations

import json

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import normalizers, pre_tokenizers

from coterie.tokenizer.bpe import BPE
from coterie.tokenizer.subword import SubwordTokenizer

TEXT = "Shall I compare thee to a summer's day?  It's 1609,\n\tünd – \x85 日本\u2028 <X> <X>!"
RULES = json.loads(BPE(vocab_size=300).build([TEXT])._rules.to_str())


def changed(**changes) -> SubwordTokenizer:
    """Return the rules of a trained BPE with some parts exchanged."""
    rules = tokenizers.Tokenizer.from_str(json.dumps(RULES | changes))
    return SubwordTokenizer(rules)


def part(value) -> dict:
    return json.loads(value.__getstate__())


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
WORDS = {"type": "Split", "pattern": {"Regex": r"\p{L}+|\s+"}, "behavior": "Isolated",
         "invert": False}  # fmt: skip
ADDED = {"id": 300, "content": "<X>", "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}  # fmt: skip


def stages(*parts):
    return {"type": "Sequence", "pretokenizers": list(parts)}


KEPT = {
    "plain": {},
    "split first": {"pre_tokenizer": stages(WORDS, BYTES | {"use_regex": False})},
    "digits": {"pre_tokenizer": stages(part(pre_tokenizers.Digits()), BYTES)},
    "added": {"added_tokens": [ADDED]},
}
LOST = {
    "normalizer": {"normalizer": part(normalizers.Lowercase())},
    "prefix": {"pre_tokenizer": BYTES | {"add_prefix_space": True}},
    "removed": {"pre_tokenizer": stages(WORDS | {"behavior": "Removed"}, BYTES)},
    "bytes twice": {"pre_tokenizer": stages(BYTES, BYTES)},
    "no bytes": {"pre_tokenizer": WORDS},
    "stripped": {"added_tokens": [ADDED | {"lstrip": True}]},
    "stripped behind": {"added_tokens": [ADDED | {"rstrip": True}]},
    "blanks": {"pre_tokenizer": stages(part(pre_tokenizers.WhitespaceSplit()), BYTES)},
    "decoder": {"decoder": None},
    "alphabet": {"model": RULES["model"] | {
        "vocab": {k: v for k, v in RULES["model"]["vocab"].items() if k != "t"}, "merges": [],
    }},
}  # fmt: skip


@pytest.mark.parametrize("name", KEPT)
def test_rules_that_change_nothing_keep_every_text(name):
    tokenizer = changed(**KEPT[name])
    assert tokenizer.keeps_text

    @given(st.text(st.characters(exclude_categories=["Cs"])))
    def comes_back(text):
        assert tokenizer.decode(tokenizer.encode(text)) == text

    comes_back()
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT


@pytest.mark.parametrize("name", LOST)
def test_rules_that_lose_something_do_not(name):
    tokenizer = changed(**LOST[name])
    assert not tokenizer.keeps_text
    assert tokenizer.decode(tokenizer.encode(TEXT)) != TEXT
