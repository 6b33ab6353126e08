"""Numbers that follow the steps."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from coterie.data.ramp import Linear, Share, Stairs, value_at


def test_a_line_and_stairs_have_their_values():
    line = Linear(first=48, last=88, begin=10, end=20)
    assert [value_at(line, step) for step in (0, 10, 15, 20, 99)] == [48, 48, 68, 88, 88]
    stairs = Stairs(values=(32, 64, 128), begins=(0, 5, 7))
    assert [value_at(stairs, step) for step in (0, 4, 5, 6, 7, 99)] == [32, 32, 64, 64, 128, 128]
    assert value_at(0.25, 7) == 0.25


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (1.5, "between 0 and 1"),
        ({"kind": "linear", "first": 0, "last": -0.1, "end": 5}, "between 0 and 1"),
        ({"kind": "steps", "values": [0, 2], "begins": [0, 5]}, "between 0 and 1"),
        ({"kind": "linear", "first": 0, "last": 1, "begin": 5, "end": 5}, "must come after"),
        ({"kind": "steps", "values": [0, 1], "begins": [1, 5]}, "must be 0 and then rise"),
        ({"kind": "steps", "values": [0, 1], "begins": [0]}, "need as many steps"),
        ("half", "no kind “half”"),
    ],
)
def test_nonsense_is_refused(given, problem):
    with pytest.raises(ValidationError, match=problem):
        TypeAdapter(Share).validate_python(given)
