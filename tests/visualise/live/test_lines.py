"""A text in lines is the same whether it came at once or token by token."""

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from coterie.foundation.traces import Trace, TraceHeader
from coterie.visualise.live.lines import Ribbon

TEXTS = ["Shall", " I", " ", "compare", "\n", "", "🙂", " שלום", "x" * 45, "\t", "thee", " to",
         "\n\n", "a ", "summer", "'", "s", " ", " ", " day", "?", "\n"]  # fmt: skip


def trace_of(texts, read):
    header = TraceHeader(model="m", vocabulary=50, experts=(4,), experts_per_token=1)
    records = np.zeros(len(texts), header.record_type())
    records["generated"], records["read"] = True, np.arange(len(texts)) < read
    records["experts"][:, 0, 0] = np.where(records["read"], np.arange(len(texts)) % 4, 0xFFFF)
    return Trace(header, records, list(texts))


def told(ribbon, trace, at, width, rows=99):
    rows = ribbon.lines(trace, "expert", 0, at, width, rows)
    console = Console(width=width, color_system="truecolor", force_terminal=True)
    return [[(segment.text, str(segment.style)) for segment in line]
            for line in console.render_lines(rows, pad=False)]  # fmt: skip


@pytest.mark.parametrize("width", [8, 20, 60])
def test_token_by_token_it_is_what_it_is_at_once(width):
    growing, whole = Ribbon(), trace_of(TEXTS, len(TEXTS))
    header = whole.header
    for count in range(1, len(TEXTS) + 1):
        part = trace_of(TEXTS[:count], count - 1)
        told(growing, Trace(header, part.records, part.texts), count - 1, width)
    for at in range(len(TEXTS)):
        assert told(growing, whole, at, width) == told(Ribbon(), whole, at, width)


@pytest.mark.parametrize("width", [8, 20, 60])
def test_lines_hold_all_of_the_text_and_no_more_than_the_width(width):
    lines = told(Ribbon(), trace_of(TEXTS, len(TEXTS)), 0, width)
    plain = ["".join(text for text, _ in line) for line in lines]
    text = "".join(TEXTS).replace("\t", "    ")
    assert "".join(plain).replace(" ", "") == text.replace("\n", "").replace(" ", "")
    assert max(cell_len(line.rstrip()) for line in plain) <= width
    if width == 20:
        assert [line.rstrip() for line in plain[:2]] == ["Shall I compare", "🙂"]


@pytest.mark.parametrize("width", [26, 30, 60])
def test_the_token_looked_at_is_marked_also_where_it_shows_nothing(width):
    trace = trace_of(TEXTS, len(TEXTS))
    for at, sign in ((1, " I"), (4, "⏎"), (5, "·"), (12, "⏎"), (21, "⏎")):
        lines = told(Ribbon(), trace, at, width)
        marked = [text for line in lines for text, style in line if style == "bold reverse"]
        assert marked == [sign]


def test_another_text_under_an_equal_header_is_shown_anew():
    ribbon, one = Ribbon(), trace_of(["one"], 1)
    told(ribbon, one, 0, 20)
    assert told(ribbon, trace_of(["two"], 1), 0, 20)[0][0][0] == "two"
