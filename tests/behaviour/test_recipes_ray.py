"""The recipes for Ray, on a cluster of two nodes that lie on this machine."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from coterie.foundation.event_log import read_events
from coterie.train.events import RunStarted, StepDone

from ..parallel.runs import TEXT, settings

pytestmark = [
    pytest.mark.distributed,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed"),
]
RECIPES = Path(__file__).parents[2] / "recipes"
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
node = dict(num_cpus=1, object_store_memory=80_000_000)
cluster = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
cluster.add_node(**node)
print("\\n" + cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""
RUNS = ("one", "era")
SECONDS = 500  # on a busy machine


@pytest.fixture(scope="module")
def address():
    """Hold a cluster of two nodes and return where it is."""
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    command = [sys.executable, "-c", CLUSTER]
    with subprocess.Popen(
        command, env=os.environ | quiet, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as cluster:  # fmt: skip
        yield next(line for line in cluster.stdout if ":" in line and " " not in line).strip()
        cluster.stdin.close()
        cluster.wait(SECONDS)


@pytest.fixture
def begin(tmp_path):
    """Return a function that begins a command in the test's folder."""
    places = {"COTERIE_RUNS": str(tmp_path / "runs"), "COTERIE_CACHE": str(tmp_path / "cache")}

    def call(*words: str | Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *words], cwd=tmp_path, env=os.environ | places, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    return call


def done(process: subprocess.Popen[str]) -> str:
    """Wait for a command; return what it printed."""
    said, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, said[-3000:]
    return said


def parent_of_rank(rank: int) -> int:
    """Return the process that started a rank of the run `era`; 0: there is none yet."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            command, said = (place / "cmdline").read_bytes(), (place / "environ").read_bytes()
            if b"--name\0era" in command and f"\0RANK={rank}\0".encode() in b"\0" + said:
                return int((place / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    return 0


def test_a_run_that_loses_a_worker_ends_as_one_process_does(address, begin, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    more = {
        "model": {"width": 64, "context": 64},
        "train": {
            "steps": 24, "batch_size": 32, "checkpoint_every": 2, "evaluate_every": 0,
            "optimizer": {"learning_rate": 0.001},  # so little that no token changes its expert
        },
    }  # fmt: skip
    asked = settings(str(tmp_path / "text.txt"), more).model_dump(mode="json")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(asked))
    done(begin("-m", "coterie", "train", "tiny.yaml", "--name", "one"))
    process = begin(
        RECIPES / "ray_train.py", "--workers", "2", "--cpus", "1", "--name", "era",
        "--max-failures", "1", "--address", address, "tiny.yaml", "parallel.shard=2",
    )  # fmt: skip
    end = time.monotonic() + SECONDS
    while not list((tmp_path / "runs/era/checkpoints").glob("step-*2")):
        assert process.poll() is None, process.communicate()[0][-3000:]
        assert time.monotonic() < end
        time.sleep(0.02)
    os.kill(parent_of_rank(1), signal.SIGKILL)
    done(process)
    one, era = (list(read_events(tmp_path / "runs" / name / "events.jsonl")) for name in RUNS)
    alone, shared = (
        {e.step: e.loss for e in each if isinstance(e, StepDone)} for each in (one, era)
    )
    assert list(alone) == list(range(1, 25))
    assert shared == pytest.approx(alone, rel=1e-5)
    starts = [event.resumed_from for event in era if isinstance(event, RunStarted)]
    assert len(starts) == 2
    assert starts[1] in range(2, 24, 2)


def test_nodes_prepare_the_store_that_one_process_does(address, begin, tmp_path):
    (tmp_path / "texts").mkdir()
    for number in range(6):
        (tmp_path / f"texts/{number}.txt").write_text(TEXT[number * 900 : (number + 1) * 900])
    words = ("texts", "--tokenizer", "bytes", "--valid-fraction", "0.2", "--out")
    recipe = RECIPES / "ray_prepare.py"
    said = done(begin(recipe, "--parts", "4", "--address", address, *words, "many"))
    assert "4 parts were prepared by 2 nodes" in said
    done(begin("-m", "coterie", "data", "prepare", *words, "one"))
    one, many = (
        {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()}
        for name in ("one", "many")
    )
    assert one == many
    assert not (tmp_path / "many.parts").exists()
