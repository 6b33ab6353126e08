"""Nothing that a terminal would obey passes the gate."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.foundation.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 漢 🎭", "plain é 漢 🎭"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\rb", "a\\x0db"),
        ("\x9b31m", "\\x9b31m"),
        ("a\u202eb", "a\\u202eb"),
        ("\udc80", "\\udc80"),
        ("line\nline\ttab", "line\nline\ttab"),
        ("line\r\nline", "line\nline"),
    ],
)
def test_what_is_shown(text: str, shown: str):
    assert printable(text) == shown


def test_a_name_within_a_line_keeps_no_line_break():
    assert printable("a\nb\tc", keep="") == "a\\x0ab\\x09c"


@given(st.text())
def test_no_control_character_passes(text: str):
    shown = printable(text)
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in shown if c not in "\n\t")
    shown.encode("utf-8")
