"""The panels show the figures, and obey no text that they show."""

import io

import numpy as np
import pytest
from rich.console import Console

from coterie.foundation.traces import NO_EXPERT, Trace, TraceHeader
from coterie.visualise.console import SafeConsole
from coterie.visualise.watching import coloured_text, legend, view

TEXTS = ["a", "\x1b[2J<b>", "שלום\u202e", "🙂", "x" * 100_000, "[red]", "\n"]


@pytest.fixture
def trace():
    header = TraceHeader(
        model="m", vocabulary=50, experts=(4, 0), experts_per_token=2, candidates=2, lens=1,
        masked=("0:3",),
    )  # fmt: skip
    records = np.zeros(len(TEXTS), header.record_type())
    records["token"] = records["position"] = np.arange(len(TEXTS))
    records["generated"], records["read"] = records["position"] > 2, records["position"] < 6
    records["experts"], records["experts"][:, 0] = NO_EXPERT, [2, 1]
    records["weights"][:, 0] = [0.7, 0.3]
    records["shares"][:, 0] = [0.1, 0.2, 0.6, 0.1]
    records["surprise"], records["entropy"] = np.log(50), 0.0
    records["allowed"], records["after"], records["after_p"] = 2, [5, 4], [0.9, 0.1]
    records["before"], records["before_p"] = [5, 1], [0.6, 0.2]
    records["lens"], records["lens_p"] = 1, 0.5
    records["attended"][:, 0], records["attended_p"][:, 0] = [1, 0, 0], [0.8, 0.1, np.nan]
    records["margin"][:, 0] = 0.125
    return Trace(header, records, TEXTS, dict(enumerate(TEXTS)))


def shown(trace, width=160, **options):
    page = io.StringIO()
    SafeConsole(file=page, width=width, no_color=True).print(view(trace, **options))
    return page.getvalue()


def test_panels_show_the_figures(trace):
    page = shown(trace, experts=[(0, 2)])
    assert "token 6 of 7: ‘[red]’ (generated), surprise 3.91, entropy 0 nats  masked: 0:3" in page
    rows = [line.split() for line in page.splitlines()]
    assert ["‘[red]’", "◂", "0.600", "‘[red]’", "◂", "0.900"] in rows
    assert ["0", "0.10", "[0.30]", "[0.70]", "0.10", "0.125"] in rows
    load = next(row for row in rows if row[:2] == ["0", "generated"])
    assert load[2:7] == ["3", "0.00✗", "2.00▲", "2.00▲", "0.00✗"]
    assert next(row for row in rows if row[:1] == ["w"])[1:5] == ["0.00", "1.20", "2.80", "0.00"]
    assert ["load,", "weight", "2.00,", "2.80", "(fair:", "1.00)"] in rows
    assert "uniform 0.250" in page
    assert "−1 (80%)" in page


@pytest.mark.parametrize("colouring", ["expert", "surprise", "entropy"])
def test_colours_say_what_the_legend_says(trace, colouring):
    text = coloured_text(trace, colouring, 0)
    styles = {str(span.style) for span in text.spans}
    expected = {"expert": "#009e73", "surprise": "#b40426", "entropy": "#3b4cc0"}[colouring]
    assert {style[-7:] for style in styles} >= {expected}
    assert {style.startswith("italic ") for style in styles} == {True, False}
    assert expected in {str(span.style).split()[-1] for span in legend(trace, colouring, 0).spans}


def test_foreign_text_is_shown_and_not_obeyed(trace):
    page = shown(trace, at=1, width=90)
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "\\x1b[2J<b>" in page
    assert "שלום" in page
    assert "🙂" in page
    for at in range(len(TEXTS)):
        shown(trace, at=at)
    page = io.StringIO()
    Console(file=page, force_terminal=True, color_system="truecolor").print(view(trace))
    assert "\x1b[2J" not in page.getvalue()


def test_an_empty_and_a_dense_trace_are_shown():
    header = TraceHeader(experts=(0,), experts_per_token=0, candidates=1, lens=0)
    blank = Trace(header, np.zeros(0, header.record_type()), [])
    assert "Nothing was recorded" in shown(blank)
    records = np.zeros(1, header.record_type())
    assert "surprise = −log p" in shown(Trace(header, records, ["a"], {0: "a"}))
