"""A package outside declares an event, publishes it and shows it, in one file."""

import importlib
import io
import subprocess
import sys

import pytest
from rich.console import Console

from coterie.foundation.errors import UserError
from coterie.foundation.event_log import read_events
from coterie.foundation.events import Event
from coterie.foundation.runs import RunDirectory
from coterie.train.events import StepDone
from coterie.train.monitor.publish import Publisher
from coterie.visualise.report import write_report
from coterie.visualise.sections import section as sections
from coterie.visualise.sections.section import Section, add_section, import_views
from coterie.visualise.terminal import Display

MY_LAB = '''
"""The entropy of the router, measured every second step."""

from typing import Literal

from coterie.foundation.events import Count, Event, Number
from coterie.visualise.charts import Chart, Line
from coterie.visualise.reducers.base import Reducer
from coterie.visualise.reducers.curves import Curves
from coterie.visualise.sections.section import Section, add_section


class Entropy(Event):
    kind: Literal["my_lab.events:Entropy"] = "my_lab.events:Entropy"
    step: Count
    value: Number

    def numbers(self):
        return {"router/entropy": self.value}


class Observer:
    def attach(self, publish):
        self.publish = publish

    def __call__(self, event):
        if event.kind == "step" and event.step % 2 == 0:
            self.publish(Entropy(step=event.step, value=2 / event.step))


class Entropies(Reducer):
    kinds = (Entropy,)

    def __init__(self):
        self.curves = Curves()

    def update(self, event):
        self.curves.add(event.step, {"value": event.value})

    def rewind(self, step):
        self.curves.rewind(step)


def html(series):
    curves = series[Entropies].curves
    line = Line("entropy", curves.steps, curves["value"])
    return Chart("Entropy of the router", "nats", [line]).html()


def line(series):
    values = series[Entropies].curves["value"]
    return f"{values[-1]:.3f} nats" if len(values) else ""


add_section(Section("entropy", "Router entropy", (Entropies,), html, line))
'''


@pytest.fixture
def my_lab(tmp_path, monkeypatch):
    """Import `my_lab.events` and forget its section afterwards."""
    folder = tmp_path / "elsewhere" / "my_lab"
    folder.mkdir(parents=True)
    (folder / "events.py").write_text(MY_LAB)
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.setattr(sections, "_added", {})
    yield importlib.import_module("my_lab.events")
    for name in ("my_lab.events", "my_lab"):
        del sys.modules[name]


def step(number: int) -> StepDone:
    return StepDone(step=number, loss=2.0, learning_rate=0.1, gradient_norm=1.0, tokens=8 * number,
                    seconds=0.1, tokens_per_second=80.0)  # fmt: skip


def published(run: RunDirectory, *observers) -> RunDirectory:
    run.path.mkdir(parents=True)
    run.write_config("seed: 1\n")
    with Publisher(run, observers) as publish:
        for number in range(1, 7):
            publish(step(number))
    return run


def test_its_event_is_published_recorded_and_shown(my_lab, tmp_path):
    console = Console(file=io.StringIO(), width=200)
    with Display(console, every_seconds=0.0) as display:
        run = published(RunDirectory(tmp_path / "run"), my_lab.Observer(), display)
    entropies = [event for event in read_events(run.events) if isinstance(event, my_lab.Entropy)]
    assert [event.step for event in entropies] == [2, 4, 6]
    assert entropies[0].numbers() == {"router/entropy": 1.0}
    page = write_report(run).read_text(encoding="utf-8")
    assert '<section id="entropy"' in page
    assert "entropy goes from 1.00 at 2 to 0.333 at 6" in page
    assert "Router entropy 1.000 nats" in console.file.getvalue()


def test_a_process_that_does_not_know_it_keeps_it_and_can_be_told(my_lab, tmp_path):
    run = published(RunDirectory(tmp_path / "run"), my_lab.Observer())
    words = ["report", str(run.path)]
    for more, wanted in (
        ([], "Not shown, for nothing here declares their kind: 3 of “my_lab.events:Entropy”."),
        (["--views", "my_lab.events"], "entropy goes from 1.00 at 2 to 0.333 at 6"),
    ):
        code = f"import sys; sys.path.insert(0, {str(tmp_path / 'elsewhere')!r});"
        code += f"from coterie.cli.app import run; sys.exit(run({words + more!r}))"
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        assert wanted in run.report.read_text(encoding="utf-8")


def test_a_section_that_fails_says_so_and_hides_nothing(my_lab, tmp_path):
    def broken(_series):
        raise LookupError("<b>no luck</b>")

    class BrokenReducer(my_lab.Entropies):
        def update(self, _event):
            raise ValueError("odd event")

    add_section(Section("broken", "Broken", (), broken, broken))
    add_section(Section("misled", "Misled", (BrokenReducer,), lambda _series: "shown all the same"))
    run = published(RunDirectory(tmp_path / "run"), my_lab.Observer())
    page = write_report(run).read_text(encoding="utf-8")
    assert "This could not be shown: LookupError: &lt;b&gt;no luck&lt;/b&gt;" in page
    assert "This could not be shown: ValueError: odd event" in page
    assert "entropy goes from 1.00" in page
    assert "shown all the same" not in page


def test_a_module_that_cannot_be_imported_is_named(tmp_path, monkeypatch):
    (tmp_path / "raises.py").write_text("raise RuntimeError('\\x1b[2J')")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, reason in (("no_lab.events", "ModuleNotFoundError"), ("raises", r"\\x1b\[2J")):
        with pytest.raises(UserError, match=f"{name} cannot be imported: .*{reason}"):
            import_views([name])


def test_an_observer_that_cannot_attach_is_dismissed(tmp_path):
    class Clumsy:
        def attach(self, _publish):
            raise OSError("no")

        def __call__(self, _event: Event):
            raise AssertionError("it is not told anything")

    run = published(RunDirectory(tmp_path / "run"), Clumsy())
    notices = [event.message for event in read_events(run.events) if event.kind == "notice"]
    assert notices == ["Clumsy failed and is not told anything more in this run: OSError: no"]
