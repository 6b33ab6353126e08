"""Events become series without losing what matters."""

import pytest

from coterie.foundation.errors import RunError
from coterie.foundation.event_log import LogReader, read_record
from coterie.foundation.events import LogRestarted
from coterie.foundation.runs import RunDirectory
from coterie.train.events import Evaluated, LayerLoad, LoadMeasured, RunStarted, StepDone
from coterie.visualise.reducers.base import Reducer
from coterie.visualise.reducers.curves import ROWS
from coterie.visualise.report import report_page
from coterie.visualise.series import Series, read_series, series_of


def step(number, **changes):
    fields = {"step": number, "loss": 2.0, "learning_rate": 0.1, "gradient_norm": 1.0,
              "tokens": 64 * number, "seconds": 0.5, "tokens_per_second": 128.0}  # fmt: skip
    return StepDone(**fields | changes)


def test_headline_of_a_made_up_run(synthetic):
    series = series_of(synthetic(steps=200, layers=2, resume_at=100))
    headline = series.headline()
    assert headline["status"] == "finished"
    assert headline["tokens"] == 200 * 2048
    assert headline["validation_loss"] == pytest.approx(series.validation[-1].loss, abs=1e-6)
    assert headline["nats_per_character"] == headline["validation_loss"]
    assert headline["training_loss"] < headline["validation_loss"]
    assert headline["damaged_checkpoints"] == 1
    assert series.resumes == (100,)


def test_nats_per_character_counts_characters(synthetic):
    event = Evaluated(step=1, split="valid", loss=3.0, tokens=100, characters=400, seconds=1.0)
    assert series_of([event]).headline()["nats_per_character"] == 0.75


def test_a_run_that_was_resumed_and_goes_on_has_not_ended(synthetic):
    events = synthetic(steps=100, resume_at=50, finished=False)
    assert series_of(events).status == "running"


def test_time_counts_steps_that_were_not_recorded():
    series = series_of([step(10), step(20), step(21)])
    assert series.elapsed.tolist() == [5.0, 10.0, 10.5]
    assert series.at_step(series.tokens, [5, 10, 25]).tolist() == [0, 640, 1344]


def test_balance_in_the_headline_sums_the_end_of_the_run():
    events = [
        LoadMeasured(step=s, steps=1, layers=(LayerLoad(layer=0, load=load),))
        for s, load in enumerate([(90, 10)] * 18 + [(60, 40), (40, 60)])
    ]
    assert series_of(events).imbalance == 1.0


def test_events_without_anything_make_an_empty_series():
    series = series_of([])
    assert series.status == "running"
    assert series.headline()["training_loss"] is None


def test_a_run_without_events_is_an_error(tmp_path):
    with pytest.raises(RunError):
        read_series(RunDirectory(tmp_path))


def test_a_fact_that_is_missing_stays_missing():
    start = RunStarted(name="n", preset="p", parameters=1, active_parameters=1, steps=2,
                       tokens_per_step=1, device="cpu", precision="float32")  # fmt: skip
    headline = series_of([start, step(1, mfu=None)]).headline()
    assert headline["mfu"] is None
    assert headline["validation_loss"] is None
    assert headline["max_over_mean_load"] is None


def test_a_growing_log_gives_what_the_whole_log_gives(synthetic_run, tmp_path):
    whole = synthetic_run(steps=120, layers=2, resume_at=60, every=20).events.read_bytes()
    path = tmp_path / "growing.jsonl"
    reader, followed = LogReader(path), Series("growing", path=path)
    with open(path, "ab", buffering=0) as file:
        for at in range(0, len(whole), 20_000):
            file.write(whole[at : at + 20_000])
            for event in reader.read():
                followed.update(event)
            afresh = Series("growing", path=path)
            for event in LogReader(path).read():
                afresh.update(event)
            assert followed.headline() == afresh.headline()
    assert report_page(followed) == report_page(series_of(read_record(path).events))


def test_a_resume_takes_back_what_came_after(synthetic):
    events = synthetic(steps=100, layers=2, every=20, finished=False)
    again = events[0].model_copy(update={"resumed_from": 40})
    series = series_of([*events, again])
    kept = series_of([e for e in events if getattr(e, "step", 0) <= 40] + [again])
    assert series.step[-1] == 40
    assert series.headline() == kept.headline()
    assert report_page(series) == report_page(kept)


def test_a_log_that_restarts_begins_from_nothing(synthetic):
    events = synthetic(steps=20, layers=1)
    series = series_of([*synthetic(steps=50), LogRestarted(reason="replaced"), *events])
    assert report_page(series) == report_page(series_of(events))


def test_a_very_long_run_stays_small(synthetic):
    series, step = Series(), synthetic(steps=1, layers=0)[2]
    for number in range(1, 100_001):
        series.update(step.model_copy(update={"step": number, "tokens": 9 * number}))
    assert len(series.step) <= ROWS
    assert series.step[-1] == 100_000
    assert series.tokens[-1] == 900_000
    assert series.elapsed[-1] == pytest.approx(100_000 * step.seconds)


def test_damaged_lines_are_complained_of(synthetic_run):
    run = synthetic_run(steps=10)
    with open(run.events, "ab") as file:
        file.write(b"what\n" * 40)
    complaints = read_series(run).complaints
    assert len(complaints) == 4
    assert "37 more lines" in complaints[-1]


def test_a_guest_that_fails_is_told_nothing_more(synthetic):
    class Guest(Reducer):
        kinds = (StepDone,)
        calls = 0

        def update(self, _event):
            Guest.calls += 1
            raise LookupError("no luck")

    series = Series(guests=[Guest])
    for event in synthetic(steps=5):
        series.update(event)
    assert Guest.calls == 1
    assert isinstance(series.failures[Guest], LookupError)
    assert series.step[-1] == 5
