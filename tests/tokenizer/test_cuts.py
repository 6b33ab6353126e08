"""Places where a text may be cut: found where they are, never inside a word or a special token."""

from __future__ import annotations

import random
import runpy
from pathlib import Path

import pytest

from coterie.tokenizer.cuts import CUT_REACH, last_cut, last_place_outside

SCRIPT = Path(__file__).parents[2] / "scripts" / "fuzz_cuts.py"

FOUND = [
    ("one line\nnext line here", 20, "one line\n"),  # a line break is preferred to a blank
    ("no lines but blanks", 16, "no lines but"),
    ("two  blanks", 6, "two"),
    ("中文字，没有空格", 8, "中文字"),
    ("abc123def", 9, "abc123"),
    ("word-word", 9, "word"),
]


@pytest.mark.parametrize(("text", "near", "before"), FOUND)
def test_the_last_place_is_found(text, near, before):
    place = last_cut(text, near)
    assert place is not None
    assert text[:place] == before


@pytest.mark.parametrize("text", ["", "a", "abcdef", "    ", "\n\n\n", "don't", "!!!", "𐐀!𐐀"])
def test_where_no_place_is_known_there_is_none(text):
    assert all(last_cut(text, near) is None for near in range(len(text) + 2))


def test_no_place_lies_beyond_the_wished_one_or_its_reach():
    text = "a" * 10 + " b" + "c" * CUT_REACH + " d"
    assert last_cut(text, 5) is None
    assert last_cut(text, 10) == 10
    assert last_cut(text, len(text) - 3) is None  # the blank at 10 is too far back
    assert last_cut(text, len(text)) == len(text) - 2


def test_special_tokens_stay_whole():
    text = "x <|a b|> y"
    assert last_cut(text, 6, ["<|a b|>"]) == 1
    assert last_cut(text, 6) == 5
    assert last_cut("x <|a b", 6, ["<|a b|>"]) == 1  # it may still be completed
    assert last_place_outside("<<<>>>", 3, ["<<>>"]) == 1
    assert last_place_outside("<<<>>>", 5, ["<<>>"]) == 5


def test_no_cut_of_random_texts_changes_a_token():
    fuzz = runpy.run_path(str(SCRIPT))
    rng = random.Random(5)
    for tokenizer in fuzz["tokenizers"]():
        for _ in range(150):
            text = fuzz["random_text"](rng)
            assert fuzz["wrong_cut"](tokenizer, text) is None, (tokenizer, text)
