"""`coterie watch`: a run as it trains, printed or shown, from its record alone."""

import pytest

from coterie.cli.app import run
from coterie.foundation.event_log import EventLog
from coterie.foundation.locks import owner_of
from coterie.foundation.runs import find_run
from coterie.foundation.traces import read_trace
from coterie.train.events import (
    ExpertWatched,
    LayerWatched,
    RoutingWatched,
    RunEnded,
    RunStarted,
    StepDone,
)

START = RunStarted(name="tiny", preset="tiny", parameters=10, active_parameters=5, steps=2,
                   tokens_per_step=8, device="cpu", precision="float32")  # fmt: skip
STEP = StepDone(step=2, loss=1.5, learning_rate=0.1, gradient_norm=1, tokens=16, seconds=1,
                tokens_per_second=8)  # fmt: skip
LAYER = LayerWatched(
    layer=1, residual=1, attention=1, feedforward=1, margin=0.25, token=0.5, token_null=0.125,
    experts=(ExpertWatched(weight=1, position=0.5),),
)  # fmt: skip


@pytest.fixture
def events(tiny_run):
    """Return the record of the tiny run, with two steps and a look in it."""
    path = find_run("tiny").events
    with EventLog(path) as log:
        for event in (START, STEP, RoutingWatched(step=2, tokens=9, layers=(LAYER,)),
                      RunEnded(step=2, status="finished", seconds=2)):  # fmt: skip
            log.append(event)
    return path


def test_a_run_is_told_as_it_was_recorded(events, capsys):
    assert run(["watch", "tiny", "--plain"]) == 0
    out, err = capsys.readouterr()
    assert "finished at step 2" in out
    assert "routing at step 2  layer 1: margin 0.25, token 0.5 nats (dealt 0.125)" in out
    assert "\x1b" not in out
    assert "no end was recorded" not in err


def test_a_killed_and_damaged_record_is_named(events, capsys):
    lines = events.read_text(encoding="utf-8").splitlines()
    events.write_text("\n".join([lines[0], '{"kind": 3}', *lines[1:-1], lines[-1][:20]]))
    assert run(["watch", "tiny", "--plain"]) == 0
    out, err = capsys.readouterr()
    assert "routing at step 2" in out
    assert "line 2 of" in " ".join(err.split())
    assert "no end was recorded" in " ".join(err.split())


def test_a_recorder_that_was_killed_is_seen_by_all_who_look(
    tiny_run, tmp_path, capsys, killed_recorder
):
    pytest.importorskip("textual")
    from coterie.visualise.live.source import LiveText
    from coterie.visualise.live.training import TrainingApp
    from coterie.visualise.live.writing import WritingApp

    made, tiny = tmp_path / "made.trace", find_run("tiny")
    assert run(["visualise", "tiny", "max_tokens=60", "--plain", "--record", str(made)]) == 0
    left = killed_recorder(tiny.path, made)
    capsys.readouterr()
    assert run(["watch", "tiny", "--plain"]) == 0
    out, err = capsys.readouterr()
    assert "step" in out
    assert "no end was recorded: the run stopped without a word" in " ".join(err.split())
    assert run(["visualise", str(left), "--plain"]) == 0
    assert "ends early, after " in " ".join(capsys.readouterr().err.split())
    app = TrainingApp(tiny, lambda: owner_of(tiny.path) is not None)
    for event in app._reader.read():
        app._series.update(event)
    app._running = app._trains()
    assert "stopped without a word, or elsewhere  step " in app.head().plain
    for file, told in ((left, " record, cut short "), (made, " record ")):
        view = WritingApp(LiveText(trace=read_trace(file)))
        view._trace = view.live.trace
        assert told in view.head().plain


def test_it_needs_a_terminal_or_says_what_does_not(events, capsys, monkeypatch):
    pytest.importorskip("textual")
    from coterie.cli import watch
    from coterie.visualise.console import SafeConsole
    from coterie.visualise.live.training import TrainingApp

    assert run(["watch", "tiny"]) == 2
    assert "coterie watch tiny --plain" in capsys.readouterr().err
    assert run(["watch", "tiny", "--export", "x.html"]) == 2
    assert "coterie report tiny" in capsys.readouterr().err
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(watch, "console", SafeConsole(force_terminal=True))
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    opened = []
    monkeypatch.setattr(TrainingApp, "run", lambda app: opened.append(app._trains()))
    assert run(["watch", "tiny"]) == 0
    assert opened == [False]
