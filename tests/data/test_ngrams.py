"""Words and their n-grams are equal where the words are, and only there."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from coterie.data import ngrams
from coterie.data.documents import Document
from coterie.data.ngrams import Fingerprints, word_hashes, word_ngrams

WORDS = st.lists(st.sampled_from(["To", "be", "or", "not", "x1", "naïve", "É"]), max_size=30)


def _grams(words: list[str], n: int) -> list[tuple[str, ...]]:
    words = [word.casefold() for word in words]
    n = min(n, len(words))
    return [tuple(words[at : at + n]) for at in range(len(words) - n + 1)] if n else []


@given(WORDS, WORDS, st.integers(1, 6))
def test_ngrams_are_equal_where_their_words_are(
    first: list[str], second: list[str], n: int
) -> None:
    values, bounds = word_ngrams([" ".join(first), "", " ".join(second)], n)
    assert bounds[1] == bounds[2]
    hashes = [values[: bounds[1]].tolist(), values[bounds[1] :].tolist()]
    grams = [_grams(words, n) for words in (first, second)]
    assert [len(each) for each in hashes] == [len(each) for each in grams]
    assert dict(zip(hashes[0] + hashes[1], grams[0] + grams[1], strict=True)) == {
        key: gram for keys, words in zip(hashes, grams, strict=True)
        for key, gram in zip(keys, words, strict=True)
    }  # fmt: skip
    assert len(set(hashes[0] + hashes[1])) == len(set(grams[0] + grams[1]))


def test_punctuation_case_and_blocks_make_no_difference(monkeypatch) -> None:
    text = 'To be, or not -- to be: "that" is the question; 1,000 naïve words.' * 9
    words = re.findall(r"[^\W_]+", text)
    whole, bounds = word_hashes([text, text])
    assert bounds.tolist() == [0, len(words), 2 * len(words)]
    assert (word_hashes([" ".join(words).upper()] * 2)[0] == whole).all()
    monkeypatch.setattr(ngrams, "_BLOCK", 64)
    ngrams._tables.cache_clear()
    assert (word_hashes([text, text])[0] == whole).all()
    monkeypatch.undo()
    ngrams._tables.cache_clear()
    assert len(word_hashes(["漢字カナ one"])[0]) == 5


@given(st.text(alphabet="aB \n", max_size=40), st.data())
def test_a_fingerprint_depends_neither_on_pieces_nor_on_case_and_blanks(text, data) -> None:
    cut = data.draw(st.integers(0, len(text)))
    marks = Fingerprints()
    marks.add(Document("a", text[:cut]))
    marks.add(Document("a", text[cut:], continued=True))
    marks.add(Document("b", "  ".join(text.upper().split())))
    marks.add(Document("c", text + "c"))
    first, second, third = marks.all()
    assert first == second != third
