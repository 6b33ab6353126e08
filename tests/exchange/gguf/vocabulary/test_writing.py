"""Tokenizers in GGUF files: the same numbers, the tokens that end texts, refusals in words."""

from __future__ import annotations

import itertools
import json

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from coterie.exchange.gguf.pretokenizers import PRETOKENIZERS
from coterie.exchange.gguf.vocabulary import read_vocabulary, write_vocabulary
from coterie.exchange.imported import ExchangeError
from coterie.foundation.errors import TokenizerError
from coterie.tokenizer.conventions import Conventions
from coterie.tokenizer.pieces import PieceTokenizer
from coterie.tokenizer.saving import load_tokenizer, save_tokenizer
from coterie.tokenizer.settings import parse_tokenizer
from coterie.tokenizer.special import END_OF_TEXT

HARD = (
    "It's 12345 o'clock — naïve café\n\n  HE'LL pay £3.50?!  日本語 Ωμέγα 🙂👩‍👧\r\n"
    "\tdef f(x): return x**2  # ok <|im_end|>\n"
)
CORPUS = [HARD * 4, "To be, or not to be, that is the question. 2024 2025\n" * 20]


def trained(words, *specials, size=420):
    """Return byte-level BPE trained with a way to split words."""
    rules = tokenizers.Tokenizer(models.BPE(ignore_merges=words.whole))
    rules.pre_tokenizer = words.pre_tokenizer()
    rules.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, show_progress=False, special_tokens=list(specials),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )  # fmt: skip
    rules.train_from_iterator(CORPUS, trainer)
    return rules


@pytest.mark.parametrize("name", PRETOKENIZERS)
def test_byte_level_merges_travel_both_ways(name):
    words = PRETOKENIZERS[name]
    rules = trained(words, END_OF_TEXT, "<|im_start|>", "<|im_end|>")
    conventions = Conventions((END_OF_TEXT, "<|im_end|>"), "<|im_start|>", "{{ messages }}")
    ours = PieceTokenizer(rules, conventions=conventions)
    said = write_vocabulary(ours, ours.vocab_size + 5)
    assert PRETOKENIZERS[said["tokenizer.ggml.pre"]].patterns == words.patterns
    assert said["tokenizer.ggml.eos_token_id"] == ours.end_of_text
    assert len(said["tokenizer.ggml.tokens"]) == ours.vocab_size + 5
    back = read_vocabulary(said)
    assert back.encode(HARD) == ours.encode(HARD)
    assert back.decode(ours.encode(HARD)) == HARD
    assert back.conventions == conventions
    assert back.vocab_size == ours.vocab_size


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
        write_vocabulary(PieceTokenizer(odd), 1000)


def sentence_pieces():
    """Return what a file says of a tokenizer that merges by scores, and an oracle for it."""
    words = ["▁", *"abcdehilnorstu", "▁t", "he", "▁the", "in", "▁in", "er", "the"]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    kinds = [2, 3, 3, *([6] * 256), *([1] * len(words))]
    scores = [0.0] * 259 + [-float(len(words) - i) for i in range(len(words))]
    said = {
        "model": "llama", "tokens": pieces, "token_type": kinds, "scores": scores,
        "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    score_of = dict(zip(pieces, scores, strict=True))

    def encode(text):
        parts = list("▁" + text.replace(" ", "▁"))
        while True:
            pairs = [
                (score_of.get(a + b), -i) for i, (a, b) in enumerate(itertools.pairwise(parts))
            ]
            found = max(((s, i) for s, i in pairs if s is not None), default=None)
            if found is None:
                break
            parts[-found[1] : -found[1] + 2] = [parts[-found[1]] + parts[-found[1] + 1]]
        ids = []
        for part in parts:
            known = pieces.index(part) if part in pieces else None
            ids += [known] if known else [byte + 3 for byte in part.encode()]
        return ids

    return {f"tokenizer.ggml.{name}": value for name, value in said.items()}, encode


def test_merging_by_scores_with_bytes_to_fall_back_on(tmp_path):
    said, encode = sentence_pieces()
    tokenizer = read_vocabulary(said)
    for text in ("the inner thread", "another hut 🙂 é", "lies  in  the  den"):
        assert tokenizer.encode(text) == encode(text)
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.ends == {2}
    assert tokenizer.begin_of_text == 1
    assert tokenizer.unknown_token == 0
    save_tokenizer(tokenizer, tmp_path / "tokenizer.json")
    assert load_tokenizer(tmp_path / "tokenizer.json") == tokenizer


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "bert"}, "of the kind “bert”"),
        ({"pre": "smollmm"}, "“smollmm”, which is not known here; did you mean “smollm”"),
        ({"token_type": [1]}, "tokens, but 1 kinds"),
        ({"eos_token_id": None}, "does not say which token ends"),
    ],
)
def test_what_cannot_be_read_is_said(changes, words):
    ours = parse_tokenizer("bpe:300").build(CORPUS)
    said = write_vocabulary(ours, ours.vocab_size)
    said["tokenizer.ggml.token_type"][ours.end_of_text] = 1  # not marked as special
    said.update({f"tokenizer.ggml.{name}": value for name, value in changes.items()})
    with pytest.raises(TokenizerError, match=words):
        read_vocabulary(said)


def test_a_file_without_a_vocabulary():
    assert read_vocabulary({}) is None
    assert read_vocabulary({"tokenizer.ggml.model": "no_vocab"}) is None


def test_the_envelope_keeps_conventions(tmp_path):
    rules = trained(PRETOKENIZERS["smollm"], "<|im_end|>")
    ours = PieceTokenizer(rules, conventions=Conventions(("<|im_end|>",)))
    save_tokenizer(ours, tmp_path / "tokenizer.json")
    loaded = load_tokenizer(tmp_path / "tokenizer.json")
    assert loaded == ours
    assert loaded.end_of_text == ours.special_tokens["<|im_end|>"]
    assert END_OF_TEXT not in loaded.special_tokens
    assert json.loads((tmp_path / "tokenizer.json").read_text())["ends"] == ["<|im_end|>"]
    more = loaded.extended(["<SPEAKER>"])
    assert more.end_of_text == ours.end_of_text
    assert more.special_tokens["<SPEAKER>"] == ours.vocab_size
