"""Figures are written as people read them."""

import math

import pytest

from coterie.visualise import figures


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (math.nan, "–"), (math.inf, "∞"), (0.0, "0"), (0.002, "0.002"), (1.5, "1.50"),
     (17766.0, "17,766"), (1e-5, "1e−5"), (2.5e7, "2.5e7"), (-0.25, "−0.250")],
)  # fmt: skip
def test_significant(value, text):
    assert figures.significant(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (99_999, "99,999"), (133_957_969, "134 M"), (999_999, "1.00 M"), (3.1e11, "310 G"),
     (2e13, "20.0 T"), (None, "–")],
)  # fmt: skip
def test_count(value, text):
    assert figures.count(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (0.05, "50 ms"), (5, "5.0 s"), (59.7, "1 min 00 s"), (182, "3 min 02 s"),
     (18_600, "5 h 10 min"), (187_200, "2 d 04 h"), (math.inf, "–")],
)  # fmt: skip
def test_duration(seconds, text):
    assert figures.duration(seconds) == text


def test_clock_and_size():
    assert [figures.clock(s) for s in (7.4, 725, 3723)] == ["0:07", "12:05", "1:02:03"]
    assert [figures.size(n) for n in (12, 25_700_000, 3e12)] == ["12 bytes", "25.7 MB", "3.00 TB"]


def test_a_split_is_called_by_its_full_name():
    assert figures.split_name("valid") == "validation"
    assert figures.split_name("held\x1bout") == "held\\x1bout"
