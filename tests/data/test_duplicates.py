"""Duplicates are found as often as the formula says, in any order; one of each group stays."""

from __future__ import annotations

import random

import numpy as np
import pytest

from coterie.data.documents import Document
from coterie.data.duplicates import Likeness, _join, _Read, find_duplicates, without
from coterie.foundation.errors import DataError, UserError

EXACT = Likeness(threshold=1)


def _words(seed: object, count: int) -> list[str]:
    draw = random.Random(str(seed))
    return [f"w{draw.randrange(10**9)}" for _ in range(count)]


def _documents(texts: dict[str, str]) -> list[Document]:
    return [Document(name, text) for name, text in texts.items()]


def _groups(documents: list[Document], likeness: Likeness) -> set[tuple[str, frozenset[str]]]:
    found = find_duplicates(documents, likeness)
    return {
        (str(group["kept"]), frozenset(each["name"] for each in group["removed"]))
        for group in found.groups()
    }


def test_equal_documents_differ_in_case_and_white_space() -> None:
    text = " ".join(_words("a", 50))
    documents = _documents({
        "b": text, "other": " ".join(_words("b", 50)), "A": text.upper().replace(" ", "\n"),
        "longer": text + "  ", "signs": text + "!", "empty": "--", "void": "..",
    })  # fmt: skip
    found = find_duplicates(documents, EXACT)
    assert list(found.groups()) == [
        {"kept": "longer", "removed": [
            {"name": "b", "similarity": 1.0, "equal": True},
            {"name": "A", "similarity": 1.0, "equal": True},
        ]},
    ]  # fmt: skip
    kept = [document.name for document in without(iter(documents), found)]
    assert kept == ["other", "longer", "signs", "empty", "void"]
    with pytest.raises(DataError, match="changed"):
        list(without(documents[1:], found))
    with pytest.raises(DataError, match="the input changed"):
        list(without(documents[:-1], found))


def test_near_documents_make_groups_that_do_not_depend_on_order() -> None:
    pytest.importorskip("rensa")
    texts = {}
    for group in range(40):
        base = _words(group, 300)
        for copy in range(group % 4):
            near = list(base)
            for place in random.Random(f"{group} {copy}").sample(range(300), 1):
                near[place] = f"x{group}-{copy}-{place}"
            texts[f"{group}.{copy}"] = " ".join(near)
    texts |= {f"empty {at}": "-" * at for at in range(1, 4)}
    documents = _documents(texts)
    likeness = Likeness(seed=3)
    expected = _groups(documents, likeness)
    sizes = sorted(len(removed) + 1 for _, removed in expected)
    assert sizes == [2] * 10 + [3] * 10
    assert all(len({name.split(".")[0] for name in (kept, *gone)}) == 1 for kept, gone in expected)
    for seed in range(3):
        random.Random(seed).shuffle(documents)
        assert _groups(documents, likeness) == expected
    longest = documents[0].name
    documents[0] = Document(longest, documents[0].text + " one more word")
    kept = {kept for kept, gone in _groups(documents, likeness) if longest in (kept, *gone)}
    assert kept <= {longest}


@pytest.mark.parametrize("permutations", [64, 128])
def test_planted_pairs_are_found_as_often_as_the_formula_says(permutations: int) -> None:
    """Before they are compared; the estimate then leaves out those below the threshold."""
    pytest.importorskip("rensa")
    likeness, count, size = Likeness(permutations=permutations), 1500, 120
    for jaccard in (0.5, 0.6, 0.7, 0.8, 0.9):
        common = round(jaccard * size)
        own = (size - common) // 2
        texts = []
        for pair in range(count):
            words = _words(f"{jaccard} {pair}", common + 2 * own)
            texts += [" ".join(words[: common + own]), " ".join(words[:common] + words[-own:])]
        read = _Read(Likeness(ngram=1, permutations=permutations, seed=5))
        read.add(_documents({str(at): text for at, text in enumerate(texts)}))
        signatures = np.concatenate(read.signatures)
        numbers = np.arange(len(texts))
        parent = _join(signatures, numbers, numbers, likeness.rows, threshold=0)
        recall = float(np.mean(parent[::2] == parent[1::2]))
        exact = common / (common + 2 * own)
        assert recall == pytest.approx(likeness.recall(exact), abs=0.03), (jaccard, recall)
        if jaccard == 0.9:
            found = find_duplicates(_documents({str(a): t for a, t in enumerate(texts)}),
                                    Likeness(ngram=1, permutations=permutations))  # fmt: skip
            assert float(np.mean(~found.stays)) * 2 == pytest.approx(1, abs=0.03)
    assert likeness.recall(likeness.threshold) >= 0.95


def test_numbers_out_of_range_are_refused() -> None:
    for wrong in ({"threshold": 0}, {"threshold": 1.1}, {"ngram": 0}, {"permutations": 1},
                  {"seed": -1}):  # fmt: skip
        with pytest.raises(UserError, match=next(iter(wrong))):
            Likeness(**wrong)  # type: ignore[arg-type]
