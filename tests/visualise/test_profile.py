"""The tables of a profile."""

from __future__ import annotations

import io

import pytest

from coterie.train.events import ProfiledOperation, ProfiledPart, StepsProfiled
from coterie.visualise.console import SafeConsole
from coterie.visualise.terminal import Display


@pytest.mark.parametrize("on_device", [False, True])
def test_parts_and_operations_are_told_with_their_share_of_the_step(on_device):
    event = StepsProfiled(
        step=8, steps=5, seconds=0.1, on_device=on_device, trace="runs/a/profile/trace.json.gz",
        parts=(ProfiledPart(name="experts", forward=0.02, backward=0.04),
               ProfiledPart(name="optimizer", forward=0.01, backward=0.0)),
        operations=(ProfiledOperation(part="experts", name="aten::[mm]", backward=True, calls=12,
                                      seconds=0.03),),
    )  # fmt: skip
    stream = io.StringIO()
    Display(SafeConsole(file=stream, width=100))(event)
    lines = {line.split("  ")[0].strip(): line.split() for line in stream.getvalue().splitlines()}
    assert lines["experts"][-3:] == ["20.0", "40.0", "60%"] or "60" in lines["experts"][-1]
    assert "aten::[mm]" in lines["experts (backward)"]
    assert ("(the device waits)" in lines) == on_device
    assert "runs/a/profile/trace.json.gz" in stream.getvalue()
