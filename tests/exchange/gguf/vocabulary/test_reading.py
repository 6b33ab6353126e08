"""What a file says of its tokenizer is checked; a tokenizer comes out, or a reason."""

from __future__ import annotations

import itertools

import pytest

from coterie.exchange.gguf import import_file
from coterie.exchange.gguf.vocabulary import read_vocabulary, write_vocabulary
from coterie.foundation.errors import TokenizerError
from coterie.tokenizer.saving import load_tokenizer, save_tokenizer
from coterie.tokenizer.settings import parse_tokenizer
from tests.exchange.gguf.conftest import (
    CORPUS,
    VALUES,
    tensors,
    write_gguf,
)

TOKENS = {
    "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2",
    "tokenizer.ggml.tokens": ["a", "b", "</s>"], "tokenizer.ggml.token_type": [1, 1, 3],
    "tokenizer.ggml.merges": ["a b"], "tokenizer.ggml.eos_token_id": 2,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [("tokens", [1, 2, 3]), ("tokens", "abc"), ("token_type", ["x", "y", "z"]), ("merges", [1]),
     ("eos_token_id", "x"), ("eos_token_id", True), ("add_bos_token", 1), ("pre", 3),
     ("token_type", [1]), ("eos_token_id", 77), ("model", 5), ("tokens", ["a", "a", "</s>"])],
)  # fmt: skip
def test_what_a_file_says_of_its_tokenizer_is_held_to_its_types(name, value, tmp_path):
    """The model is imported without it then, and the note says why."""
    said = TOKENS | {f"tokenizer.ggml.{name}": value}
    found = import_file(write_gguf(tmp_path / "a.gguf", "llama", VALUES, tensors(), None, said))
    assert found.tokenizer is None
    assert any("without a tokenizer" in note for note in found.notes), found.notes
    sound = write_gguf(tmp_path / "b.gguf", "llama", VALUES, tensors(), None, TOKENS)
    assert import_file(sound).tokenizer is not None


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
        ({"model": "x" * 9000}, "of the kind “x{60}…”"),
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
