"""What two texts have in common is found, and nothing else."""

from __future__ import annotations

import random

import pytest

from coterie.data.documents import Document
from coterie.data.overlap import NGramIndex, leak_of


def _words(seed: int, count: int) -> list[str]:
    return [f"w{random.Random(f'{seed} {at}').randrange(10**6)}" for at in range(count)]


def test_an_index_says_which_ngrams_other_texts_hold() -> None:
    first, second = _words(1, 100), _words(2, 50)
    texts = [" ".join(first), " ".join(second), "", "short"]
    index = NGramIndex([Document("x", text) for text in texts], 5)
    assert not index.mark([" ".join(_words(3, 1000))])
    assert index.mark(
        ["", " ".join([*_words(4, 9), *first[20:30], *_words(5, 9)]), "?", " ".join(first[96:])]
    ).tolist() == [False, True, False, False]  # fmt: skip
    assert index.seen[20:26].all()
    assert index.seen.sum() == 6
    assert index.shares() == pytest.approx([6 / 96, 0, 0, 0])
    assert not index.mark(["a short text"])
    assert index.mark(["SHORT!"])
    assert index.shares()[3] == 1


def test_a_leak_counts_documents_and_ngrams() -> None:
    texts = [" ".join(_words(seed, 200)) for seed in range(20)]
    train = [Document(str(at), text) for at, text in enumerate(texts[:10])]
    almost = texts[1].split()
    almost[100] = "other"
    valid = [
        Document("new", texts[10]), Document("equal", texts[0].upper().replace(" ", "\n")),
        Document("near", " ".join(almost[:100])),
        Document("near", " " + " ".join(almost[100:]), continued=True),
        Document("half", texts[2][: len(texts[2]) // 2] + texts[11]),
    ]  # fmt: skip
    leak = leak_of(train, valid)
    assert (leak.documents, leak.equal, leak.near) == (4, 1, 2)
    assert leak.share == pytest.approx((188 + 88 + 87 + 88) / (188 + 188 + 176 + 288), abs=0.02)
    assert leak_of([], []).share == 0
    assert leak_of(train, [train[3]]).near == 1
