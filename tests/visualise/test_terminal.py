"""The terminal shows where a run stands: a panel on a terminal, plain lines elsewhere."""

import io
import re
import threading

import pytest
from rich.console import Console

from coterie.foundation.events import Notice
from coterie.train.events import (
    Evaluated,
    LayerLoad,
    LoadMeasured,
    RankMeasured,
    RanksMeasured,
    Sampled,
    StepDone,
)
from coterie.visualise.panel import panel, spark
from coterie.visualise.reducers.steps import Pace
from coterie.visualise.series import series_of
from coterie.visualise.terminal import Display


def plain(events, width=80, encoding="utf-8", **options) -> str:
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding=encoding), width=width)
    with Display(console, **options) as display:
        assert not display.is_live
        for event in events:
            display(event)
    console.file.flush()
    return raw.getvalue().decode(encoding)


def drawn(events, width=110, height=40, elapsed=45.0) -> str:
    console = Console(file=io.StringIO(), width=width, height=height)
    console.print(panel(series_of(events), elapsed, width, height))
    return console.file.getvalue()


def test_lines_tell_beginning_evaluations_samples_and_end(synthetic):
    text = plain(synthetic(steps=100, layers=2, resume_at=50))
    assert "2,134,912 parameters (887,552 active), 100 steps of 2,048 tokens" in text
    assert len(re.findall(r"validation loss \d\.\d{3}", text)) == 2
    assert "the best so far" in text
    assert "resumed from step 50" in text
    assert "warning: checkpoints/step-00000100 is damaged" in text
    assert "    | ROMEO:" in text
    assert "finished at step 100 after" in text
    assert "\x1b" not in text


def test_lines_about_steps_come_every_few_seconds(synthetic):
    events = synthetic(steps=100, layers=1)  # about 0.11 s a step: 11 s
    often = len(re.findall(r"gradient \d", plain(events, every_seconds=0.0)))
    seldom = len(re.findall(r"gradient \d", plain(events, every_seconds=5.0)))
    assert often == 100
    assert 3 <= seldom <= 5  # the first, the last, and one every five seconds
    assert "step 100/100  loss" in plain(events, every_seconds=1e9)


def test_a_line_is_one_line_however_narrow_the_console(synthetic):
    lines = plain(synthetic(steps=50), width=20).splitlines()
    assert any(line.startswith("step ") and "tokens/s" in line for line in lines)


def test_lines_bear_any_text_and_any_encoding():
    events = [
        Sampled(step=1, prompt="[bold]", text="[bold]é[/red]\x1b[31m “q”"),
        Notice(level="warning", message="[x] –"),
    ]
    assert "    | [bold]é[/red]\\x1b[31m “q”" in plain(events)
    assert "    | [bold]?[/red]\\x1b[31m ?q?" in plain(events, encoding="ascii")


def test_the_panel_tells_where_the_run_stands(synthetic):
    events = [e for e in synthetic(steps=400, layers=4) if getattr(e, "step", 0) <= 250]
    text = drawn(events)
    for part in ("quickstart-3", "2.13 M parameters, 888 k active", "step 250/400", "62%", "0:45",
                 "left", "smoothed", "validation", "tokens/s", "MFU", "gradient norm", "layer 0",
                 "layer 3", "×", "sample at step 250", "info: The token store"):  # fmt: skip
        assert part in text, part
    assert all(len(line) <= 110 for line in text.splitlines())


def test_the_time_left_follows_the_pace(synthetic):
    events = [e for e in synthetic(steps=400, layers=0) if getattr(e, "step", 0) <= 300]
    assert series_of(events)[Pace].seconds_left == pytest.approx(100 * 0.125, rel=0.25)


@pytest.mark.parametrize(("width", "height"), [(40, 10), (60, 18), (110, 14), (110, 24), (200, 60)])
def test_the_panel_fits_the_terminal(synthetic, width, height):
    events = synthetic(steps=100, layers=12, experts=64, resume_at=50, dead=True)
    lines = drawn(events, width, height).splitlines()
    assert len(lines) < height
    assert all(len(line) <= width for line in lines)


def test_the_panel_bears_odd_events(synthetic):
    broken = StepDone(step=3, loss=float("nan"), learning_rate=0.0, gradient_norm=float("inf"),
                      tokens=1, seconds=1, tokens_per_second=1)  # fmt: skip
    load = LoadMeasured(step=3, steps=1, layers=(LayerLoad(layer=0, load=(0, 0)),))
    start = synthetic(steps=1)[0]
    assert "∞" in drawn([start, broken, load, Sampled(step=3, prompt="", text="[/]\x1b[2J")])
    assert "Waiting" in drawn([])


def test_a_layer_out_of_balance_is_shown_first(synthetic):
    layers = [LayerLoad(layer=n, load=(10, 10, 10, 10)) for n in range(40)]
    layers[33] = LayerLoad(layer=33, load=(40, 0, 0, 0))
    start = synthetic(steps=1)[0]
    text = drawn([start, LoadMeasured(step=1, steps=1, layers=tuple(layers))], width=80)
    assert "layer 33" in text
    assert "4.00×" in text


def test_live_display_on_a_terminal(synthetic, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=100, height=30)
    before = set(threading.enumerate())
    with Display(console) as display:
        assert display.is_live
        for event in synthetic(steps=100, layers=2):
            display(event)
    for thread in set(threading.enumerate()) - before:  # rich lets its thread end by itself
        thread.join(10)
        assert not thread.is_alive()
    text = file.getvalue()
    assert "the best so far" in text
    assert "finished" in text
    assert text.count("sample at step 100") >= 1


def test_the_display_ends_cleanly_when_training_fails(synthetic, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    file = io.StringIO()
    with pytest.raises(RuntimeError), Display(Console(file=file, force_terminal=True)) as display:
        display(synthetic(steps=1)[0])
        raise RuntimeError
    assert file.getvalue().endswith("\x1b[?25h")  # the cursor is shown again


def test_spark_keeps_its_width_and_its_extremes():
    assert spark([], 10) == ""
    assert spark([1.0, 1.0], 10) == "▁▁"
    line = spark([float(x) for x in range(1000)], 40)
    assert len(line) == 40
    assert (line[0], line[-1]) == ("▁", "█")


def test_loss_per_character_is_told_where_it_differs(synthetic):
    events = synthetic(steps=50, layers=0)
    assert "nats per character" not in plain(events)
    events = [
        e.model_copy(update={"characters": 4 * e.tokens}) if isinstance(e, Evaluated) else e
        for e in events
    ]
    assert "nats per character" in plain(events)
    assert "nats per character" in drawn(events)


def test_several_processes_tell_who_keeps_the_others_waiting(synthetic):
    assert "processes" not in drawn(synthetic(steps=10))
    ranks = [RankMeasured(rank=r, seconds=0.5, waiting=w) for r, w in enumerate((0.61, 0.034))]
    asked = RanksMeasured(step=10, steps=10, ranks=ranks, straggler=1)
    text = drawn([*synthetic(steps=10), asked])
    assert re.search("processes +2  waiting 3.4% to 61.0%  all wait for rank 1", text), text
