"""Events reach the record, observers and trackers; whoever fails is dismissed and named."""

from __future__ import annotations

import csv
import sys
from types import SimpleNamespace

import pytest
import torch

from coterie.foundation.errors import MissingExtraError
from coterie.foundation.event_log import read_events
from coterie.foundation.events import Notice
from coterie.train.events import (
    Evaluated,
    LayerLoad,
    LoadMeasured,
    RunEnded,
    RunStarted,
    Sampled,
    StepDone,
)
from coterie.train.monitor.publish import Publisher
from coterie.train.monitor.trackers import CSV, MLflow, TensorBoard, WeightsAndBiases

STARTED = RunStarted(
    name="r", preset="p", parameters=9, active_parameters=5, steps=3, tokens_per_step=8,
    device="cpu", precision="float32",
)  # fmt: skip
STEP = StepDone(
    step=2, loss=1.5, learning_rate=0.01, gradient_norm=0.7, tokens=16, seconds=0.1,
    tokens_per_second=80.0, mfu=0.25, auxiliary={"balance": 0.02},
)  # fmt: skip
STORY = [
    STARTED,
    STEP,
    Evaluated(step=2, split="valid", loss=2.0, tokens=10, characters=40, seconds=0.1),
    LoadMeasured(step=2, steps=2, layers=(LayerLoad(layer=1, load=(6, 2)),)),
    Sampled(step=2, prompt="To be", text=" or <not>"),
    RunEnded(step=3, status="finished", seconds=1.0),
]


def test_observers_cannot_disturb_chance_and_a_broken_one_is_named(new_run):
    run, heard = new_run("published"), []

    class Broken:
        closed = False

        def __call__(self, event):
            torch.rand(1)
            raise ValueError("out of order")

        def close(self):
            self.closed = True

    broken = Broken()
    state = torch.get_rng_state()
    with Publisher(run, [broken, heard.append]) as publish:
        for event in STORY:
            publish(event)
    assert torch.equal(torch.get_rng_state(), state)
    notices = [event for event in heard if isinstance(event, Notice)]
    assert [notice.level for notice in notices] == ["warning"]
    assert "Broken failed" in notices[0].message
    assert "out of order" in notices[0].message
    assert [event for event in read_events(run.events) if not isinstance(event, Notice)] == STORY


def test_csv_goes_on_below_after_a_resume(new_run):
    run = new_run("table")
    for _ in range(2):
        writer = CSV().build(run)
        writer(STEP)
        writer.close()
    with open(run.path / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    losses = [row for row in rows if row["name"] == "train/loss"]
    assert [(row["step"], row["value"]) for row in losses] == [("2", "1.5")] * 2


def test_tensorboard_reads_what_was_written(new_run):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = new_run("board")
    writer = TensorBoard().build(run)
    for event in STORY:
        writer(event)
    writer.close()
    written = accumulator.EventAccumulator(str(run.path / "tensorboard"))
    written.Reload()
    (scalar,) = written.Scalars("train/loss")
    assert (scalar.step, scalar.value) == (2, 1.5)
    assert "sample/text_summary" in written.Tags()["tensors"]


class Recorder:
    """Stands in for a library: remembers the names and arguments of calls."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        def call(*arguments, **options):
            self.calls.append((name, arguments, options))
            return self

        return call

    def called(self, name):
        return [(arguments, options) for called, arguments, options in self.calls if called == name]


def test_mlflow_gets_metrics_and_the_end(new_run, monkeypatch):
    library = Recorder()
    monkeypatch.setitem(sys.modules, "mlflow", library)
    writer = MLflow(address="somewhere").build(new_run("flow"))
    for event in STORY:
        writer(event)
    writer.close()
    assert library.called("set_tracking_uri") == [(("somewhere",), {})]
    metrics, options = library.called("log_metrics")[0]
    assert metrics[0]["train/loss"] == 1.5
    assert options == {"step": 2}
    assert library.called("end_run") == [((), {"status": "FINISHED"})]


def test_wandb_gets_numbers_on_their_own_step_axis(new_run, monkeypatch):
    library = Recorder()
    library.config = SimpleNamespace(update=lambda *a, **o: library.calls.append(("config", a, o)))
    monkeypatch.setitem(sys.modules, "wandb", library)
    writer = WeightsAndBiases(mode="offline").build(new_run("bias"))
    for event in STORY:
        writer(event)
    writer.close()
    assert library.called("init")[0][1]["mode"] == "offline"
    logged = [arguments[0] for arguments, _ in library.called("log")]
    assert logged[0] == {"step": 2, **STEP.numbers()}
    assert "&lt;not&gt;" in library.called("Html")[0][0][0]
    assert len(library.called("finish")) == 1


@pytest.mark.parametrize(
    ("tracker", "module"), [(MLflow(), "mlflow"), (WeightsAndBiases(), "wandb")]
)
def test_a_missing_library_names_what_to_install(new_run, monkeypatch, tracker, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"coterie\[{module}\]"):
        tracker.build(new_run("without"))
