"""The view of a run shows what its record says while it grows, to any number who look."""

import pytest

from coterie.foundation.event_log import EventLog
from coterie.foundation.locks import own, owner_of
from coterie.foundation.runs import find_run
from coterie.train.events import LayerLoad, LoadMeasured, RunEnded
from coterie.visualise.live.training import TrainingApp


@pytest.mark.parametrize("size", [(80, 24), (160, 50)])
def test_a_run_is_shown_as_it_grows(synthetic_run, on_screen, seen, drawn, look, size):
    run = synthetic_run(steps=60, finished=False, layers=0)
    running = [True]

    async def play(pilot):
        app = pilot.app
        assert "trains  step 60/60" in seen(app)[0]
        with EventLog(run.events) as log:
            layer = LayerLoad(layer=1, load=(0, 30, 10, 0))
            log.append(LoadMeasured(step=50, steps=10, layers=(layer,)))
            layer = LayerLoad(layer=1, load=(20, 0, 20, 0))
            log.append(LoadMeasured(step=60, steps=10, layers=(layer,)))
            log.append(look(40, {7: "\x1b[2Jcat"}))
            log.append(look(60))
        app._read_at = 0
        shown = []
        for name in (*app.panes, "text"):
            app.chosen = name
            await drawn(pilot)
            shown += [half for line in seen(app) for half in (line[: size[0] // 2 - 1], line)]
            shown += [line[size[0] // 2 - 1 :] for line in seen(app)]
        await pilot.press("left")
        app.chosen = "stream"
        await drawn(pilot)
        earlier = seen(app)
        with open(run.events, "a") as file:
            file.write('{"kind": "step", broken\n')
        with EventLog(run.events) as log:
            log.append(RunEnded(step=60, status="finished", seconds=1.0))
        app._read_at = 0
        app.chosen = "text"
        await drawn(pilot)
        return shown, earlier, seen(app)

    shown, earlier, ended = on_screen(TrainingApp(run, lambda: running[0]), size, play)
    rows = [line.split() for line in shown]
    assert ["1", "all", "1.00", "1.50", "1.50", "0.00✗"] in rows
    assert ["latest", "2.00▲", "0.00✗", "2.00▲", "0.00✗"] in rows
    assert any(row[:5] == ["1", "0.750", "0.0500", "0.0200", "0.0150"] for row in rows), "use"
    assert any(row[:4] == ["1", "0.125", "0.0100", "0.721"] for row in rows), "routers: 0.5 / log 2"
    assert any(row[:4] == ["1", "240", "2.00", "1.00"] for row in rows), "stream"
    assert any("‘\\x1b[2Jcat’ ×3.2 (n=12)" in line for line in shown), "the card"
    assert any("160 " in line for line in earlier), "the look before"
    assert "finished" in ended[0]
    assert any("was passed over: it is not JSON" in line for line in ended)


def test_without_looks_it_says_what_brings_them(synthetic_run, on_screen, seen, drawn):
    run = synthetic_run(steps=20)

    async def play(pilot):
        await pilot.press("2", "down", "right_square_bracket", "space", "end", "home")
        await drawn(pilot)
        return seen(pilot.app)

    lines = on_screen(TrainingApp(run, lambda: False), (80, 24), play)
    assert any("train.watch_every=20" in line for line in lines)
    assert "finished (held)" in lines[0]


def test_two_look_at_one_run_of_a_shared_folder_and_leave_it_as_it_is(synthetic_run):
    run = synthetic_run(steps=20, finished=False)
    place = find_run(str(run.path))  # by its path: it lies below no root of this machine
    views = [TrainingApp(place, lambda: owner_of(place.path) is not None) for _ in range(2)]
    there = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}

    def heads():
        for view in views:
            for event in view._reader.read():
                view._series.update(event)
            view._running = view._trains()
        return {view.head().plain for view in views}

    (head,) = heads()
    assert "stopped without a word, or elsewhere  step 20/" in head
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == there
    with own(run.path, "training"), EventLog(run.events) as log:
        (head,) = heads()
        assert " trains  step 20/" in head
        log.append(RunEnded(step=20, status="finished", seconds=1.0))
        (head,) = heads()
        assert " finished  step 20/" in head
