"""The memory of watched steps, at the end in the terminal and in the page."""

from __future__ import annotations

import io

import pytest

from coterie.train.events import MemoryPart, MemoryProfiled, RunEnded
from coterie.visualise.console import SafeConsole
from coterie.visualise.reducers.steps import MemoryByPart
from coterie.visualise.sections.training import memory_section
from coterie.visualise.series import Series
from coterie.visualise.terminal import Display


def watched(step, *, snapshot=None, on_device=False, more=0):
    names = ("experts", "attention", *(f"part {number}" for number in range(more)))
    parts = [
        MemoryPart(
            name=name, allocated=9_000_000, forward=min(size, 1_000_000), backward=size, update=0
        )
        for name, size in zip(names, (step * 1_000_000, 500_000, *[1] * more), strict=True)
    ]
    return MemoryProfiled(step=step, parts=tuple(parts), on_device=on_device,
                          process_bytes=400_000_000, snapshot=snapshot)  # fmt: skip


@pytest.mark.parametrize("on_device", [False, True])
def test_the_latest_is_printed_when_the_run_ends(on_device):
    stream = io.StringIO()
    display = Display(SafeConsole(file=stream, width=120))
    for step in (2, 100):
        display(watched(step, snapshot="a/memory.pickle" * on_device or None, on_device=on_device))
    assert not stream.getvalue()
    display(RunEnded(step=100, status="finished", seconds=1.0))
    told = stream.getvalue()
    words = " ".join(told.split())  # the title is wrapped
    assert "Memory of step 100: 100 MB at most, in the backward pass" in words
    beside = "torch's allocator has reserved" if on_device else "the whole process holds"
    assert f"{beside} 400 MB" in words
    lines = {line.split("  ")[0]: line.split() for line in told.splitlines()}
    assert lines["experts"][1:] == ["9.00", "MB", "1.00", "MB", "100", "MB", "–"]
    assert lines["all together"][2:] == ["18.0", "MB", "1.50", "MB", "100", "MB", "–"]
    assert ("Snapshot: a/memory.pickle" in told) == on_device


def test_the_page_shows_parts_over_steps_and_the_latest_as_a_table():
    series = Series()
    assert memory_section(series) == ""
    for step in (2, 4):
        series.update(watched(step, more=7, snapshot="<a>/memory.pickle"))
    shown = memory_section(series)
    assert 'data-label="experts"' in shown
    assert 'data-label="3 others"' in shown
    assert "experts goes from 2.00 at 2 to 4.00 at 4" in shown
    assert "Memory of step 4: 4.50 MB at most" in shown
    assert "<td>9.00 MB</td>" in shown
    assert "&lt;a&gt;/memory.pickle" in shown


def test_a_part_does_not_jump_where_another_pass_becomes_the_fullest():
    memory = MemoryByPart()
    for step, update in ((2, 5), (4, 50)):
        held = {"experts": (9, 8, 0), "optimizer": (1, 1, update)}
        parts = tuple(
            MemoryPart(name=name, allocated=9, forward=a, backward=b, update=c)
            for name, (a, b, c) in held.items()
        )
        memory.update(MemoryProfiled(step=step, parts=parts, on_device=False))
    assert memory.parts["experts"].tolist() == [9, 9]
    assert memory.curves["peak"].tolist() == [10, 50]


def test_what_a_resumed_run_does_again_is_forgotten():
    series = Series()
    for step in (2, 4):
        series.update(watched(step))
    memory = series[MemoryByPart]
    memory.rewind(3)
    assert memory.last is None
    assert memory.curves.steps.tolist() == [2]
    assert "Memory of step" not in memory_section(series)
