"""Our own kinds of tokenizers in GGUF files: the same ids, or a refusal."""

from __future__ import annotations

import json

import pytest
from tokenizers import pre_tokenizers

from coterie.exchange.gguf.pretokenizers import PRETOKENIZERS
from coterie.exchange.gguf.vocabulary import read_vocabulary, write_vocabulary
from coterie.exchange.imported import ExchangeError
from coterie.tokenizer.conventions import Conventions
from coterie.tokenizer.saving import load_tokenizer, save_tokenizer
from coterie.tokenizer.settings import parse_tokenizer
from coterie.tokenizer.special import END_OF_TEXT
from coterie.tokenizer.subword import SubwordTokenizer
from tests.exchange.gguf.conftest import CORPUS, HARD, trained


@pytest.mark.parametrize("name", ["bytes", "bpe:320", "gpt2"])
def test_our_own_kinds_travel(name):
    ours = parse_tokenizer(name, ["<S>"]).build(CORPUS)
    back = read_vocabulary(write_vocabulary(ours, ours.vocab_size))
    for text in (HARD, f"<S>to be{END_OF_TEXT}"):
        assert back.encode(text) == ours.encode(text)
        assert back.decode(ours.encode(text)) == text
    assert back.ends == ours.ends == {ours.end_of_text}
    assert back.begin_of_text is None


def test_kinds_without_a_home_are_refused():
    with pytest.raises(ExchangeError, match="that does not work on bytes has no home"):
        write_vocabulary(parse_tokenizer("characters").build(CORPUS), 1000)
    with pytest.raises(ExchangeError, match="257 tokens, the model only 256"):
        write_vocabulary(parse_tokenizer("bytes").build(), 256)
    odd = trained(PRETOKENIZERS["gpt-2"], END_OF_TEXT)
    odd.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Punctuation(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    with pytest.raises(ExchangeError, match="no name in GGUF"):
        write_vocabulary(SubwordTokenizer(odd), 1000)


def test_the_envelope_keeps_conventions(tmp_path):
    rules = trained(PRETOKENIZERS["smollm"], "<|im_end|>")
    ours = SubwordTokenizer(rules, conventions=Conventions(("<|im_end|>",)))
    save_tokenizer(ours, tmp_path / "tokenizer.json")
    loaded = load_tokenizer(tmp_path / "tokenizer.json")
    assert loaded == ours
    assert loaded.end_of_text == ours.special_tokens["<|im_end|>"]
    assert END_OF_TEXT not in loaded.special_tokens
    assert json.loads((tmp_path / "tokenizer.json").read_text())["ends"] == ["<|im_end|>"]
    more = loaded.extended(["<SPEAKER>"])
    assert more.end_of_text == ours.end_of_text
    assert more.special_tokens["<SPEAKER>"] == ours.vocab_size
