"""One run on a Ray cluster: python recipes/ray_train.py --workers 16 --name era s15era …

Ray places the workers, tells each its rank and lets them meet; `coterie train` then runs beside
each as under torchrun, and goes on from the newest checkpoint where Ray starts the workers anew.
Runs and cache must lie where all nodes see them. Needs `pip install "coterie[ray]"`.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import subprocess
import sys
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig, get_context
from ray.train.torch import TorchConfig, TorchTrainer
from torch import distributed

from coterie.foundation.runs import cache_root


@ray.remote(num_cpus=0)
class Starts:
    """Counts how often the workers were started."""

    def __init__(self) -> None:
        self._starts = -1

    def another(self) -> int:
        """Return how often they were started before."""
        self._starts += 1
        return self._starts


def end_with_worker() -> None:
    """Let a process end when Ray kills the worker that started it (Linux)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def worker(config: dict[str, Any]) -> None:
    """Train as one of the run's processes."""
    first = get_context().get_world_rank() == 0
    before: list[Any] = [ray.get(config["starts"].another.remote()) if first else None]
    distributed.broadcast_object_list(before)
    # RANK, WORLD_SIZE, LOCAL_RANK and MASTER_ADDR are Ray's, and so is the store at MASTER_PORT.
    said = config["environment"] | {
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": str(before[0]),
    }
    command = [sys.executable, "-m", "coterie", "train", *config["words"]]
    subprocess.run(
        command, cwd=config["folder"], env=os.environ | said, check=True,
        preexec_fn=end_with_worker,
    )  # fmt: skip


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--workers", type=int, required=True, help="processes of the run")
    parser.add_argument("--name", required=True, help="the run's")
    parser.add_argument("--cpus", type=int, default=0, help="without GPUs: cores of each worker")
    parser.add_argument("--max-failures", type=int, default=0, help="how often all start anew")
    parser.add_argument("--address", default="auto", help="the cluster's")
    arguments, words = parser.parse_known_args()
    ray.init(address=arguments.address)
    cpus = {"CPU": arguments.cpus} if arguments.cpus else None
    TorchTrainer(
        worker,
        train_loop_config={
            "words": [*words, "--name", arguments.name], "starts": Starts.remote(),
            "folder": os.getcwd(),
            "environment": {n: v for n, v in os.environ.items() if n.startswith("COTERIE_")},
        },
        torch_config=TorchConfig(backend="gloo"),  # only for meeting: the run has groups of its own
        scaling_config=ScalingConfig(
            num_workers=arguments.workers, use_gpu=cpus is None, resources_per_worker=cpus
        ),
        run_config=RunConfig(
            name=arguments.name, storage_path=str(cache_root() / "ray"),
            failure_config=FailureConfig(max_failures=arguments.max_failures),
        ),
    ).fit()  # fmt: skip


if __name__ == "__main__":
    main()
