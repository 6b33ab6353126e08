"""What training records: logs of earlier versions read the same, and trackers find the numbers."""

from __future__ import annotations

import math
import subprocess
import sys

from coterie.foundation.event_log import read_record
from coterie.foundation.events import Notice
from coterie.train.events import (
    CheckpointDamaged,
    CheckpointSaved,
    Evaluated,
    LayerLoad,
    LoadMeasured,
    RunEnded,
    RunStarted,
    Sampled,
    StepDone,
)

OLD = """\
{"time":1.0,"kind":"run_started","name":"a","preset":"p","parameters":10,"active_parameters":5,\
"steps":9,"tokens_per_step":8,"device":"cpu","precision":"float32","machine":{"cores":2}}
{"time":2.0,"kind":"notice","level":"warning","message":"look"}
{"time":3.0,"kind":"step","step":1,"loss":2.0,"learning_rate":0.1,"gradient_norm":"Infinity",\
"tokens":8,"seconds":0.1,"tokens_per_second":80.0,"mfu":0.25,"memory_bytes":7,"auxiliary":{"z":0.5}}
{"time":4.0,"kind":"load","step":1,"steps":1,"layers":[{"layer":0,"load":[3,5],"dropped":0,\
"bias":[0.1,-0.1]}]}
{"time":5.0,"kind":"evaluated","step":1,"split":"valid","loss":2.0,"tokens":10,"characters":40,\
"seconds":0.5}
{"time":6.0,"kind":"sampled","step":1,"prompt":"A","text":"B"}
{"time":7.0,"kind":"checkpoint_saved","step":1,"path":"c","bytes":3,"seconds":0.5}
{"time":8.0,"kind":"checkpoint_damaged","path":"c","problem":"torn"}
{"time":9.0,"kind":"run_ended","step":1,"status":"finished","message":"","seconds":2.0}
"""

EVENTS = [
    RunStarted(time=1, name="a", preset="p", parameters=10, active_parameters=5, steps=9,
               tokens_per_step=8, device="cpu", precision="float32", machine={"cores": 2}),
    Notice(time=2, level="warning", message="look"),
    StepDone(time=3, step=1, loss=2.0, learning_rate=0.1, gradient_norm=math.inf, tokens=8,
             seconds=0.1, tokens_per_second=80.0, mfu=0.25, memory_bytes=7, auxiliary={"z": 0.5}),
    LoadMeasured(time=4, step=1, steps=1, layers=(LayerLoad(layer=0, load=(3, 5),
                                                            bias=(0.1, -0.1)),)),
    Evaluated(time=5, step=1, split="valid", loss=2.0, tokens=10, characters=40, seconds=0.5),
    Sampled(time=6, step=1, prompt="A", text="B"),
    CheckpointSaved(time=7, step=1, path="c", bytes=3, seconds=0.5),
    CheckpointDamaged(time=8, path="c", problem="torn"),
    RunEnded(time=9, step=1, status="finished", seconds=2.0),
]  # fmt: skip


def test_a_log_of_an_earlier_version_reads_the_same(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text(OLD)
    record = read_record(path)
    assert record.events == EVENTS
    assert not record.skipped


def test_events_are_written_as_they_always_were():
    lines = [event.model_dump_json(exclude_none=True) for event in EVENTS]
    assert lines == OLD.splitlines()


def test_numbers_have_the_names_that_trackers_always_showed():
    numbers = {name: value for event in EVENTS for name, value in event.numbers().items()}
    assert numbers == {
        "train/loss": 2.0, "train/learning_rate": 0.1, "train/gradient_norm": math.inf,
        "speed/tokens_per_second": 80.0, "speed/step_seconds": 0.1, "speed/mfu": 0.25,
        "memory/bytes": 7.0, "auxiliary/z": 0.5, "load/layer_0_max_over_mean": 1.25,
        "valid/loss": 2.0, "valid/nats_per_character": 0.5,
    }  # fmt: skip


def test_a_layer_without_tokens_has_no_imbalance():
    assert math.isnan(LayerLoad(layer=0, load=(0, 0)).imbalance)


def test_reading_events_needs_no_torch():
    code = "import sys, coterie.train.events; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
