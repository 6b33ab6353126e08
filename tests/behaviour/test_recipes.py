"""What starts runs on clusters: scripts run under stand-ins, numbers that fit each other."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest
import yaml

RECIPES = Path(__file__).parents[2] / "recipes"
JOB = {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_ID": "70123", "SLURM_NNODES": "2",
       "SLURM_GPUS_ON_NODE": "4", "SLURM_CPUS_PER_TASK": "8"}  # fmt: skip


def stand_in(folder: Path, name: str, body: str) -> None:
    """Write a command that takes another's place."""
    path = folder / name
    path.write_text(f"#!/bin/bash\n{body}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def submit(tmp_path):
    """Return a function that submits the script to a scheduler of two nodes."""
    commands, told = tmp_path / "bin", tmp_path / "told"
    commands.mkdir()
    told.mkdir()
    stand_in(commands, "scontrol", 'printf "node1\\nnode2\\n"')
    stand_in(
        commands, "srun",
        'shift; for node in 0 1; do SLURM_NODEID=$node "$@" & done; wait -n && wait',
    )  # fmt: skip
    said = f'printf \'%s\\0\' "$@" "$OMP_NUM_THREADS" > {told}/$SLURM_NODEID'
    stand_in(commands, "coterie", said)

    def call(*words: str, **changes: str) -> tuple[int, list[list[str]], str]:
        environment = {**os.environ, **JOB, **changes}
        environment["PATH"] = f"{commands}:{environment['PATH']}"
        environment.pop("OMP_NUM_THREADS", None)
        done = subprocess.run(
            ["bash", RECIPES / "slurm.sh", *words],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        found = [each.read_text().split("\0")[:-1] for each in sorted(told.iterdir())]
        return done.returncode, found, done.stderr

    return call


def test_slurm_starts_the_same_command_on_each_node(submit):
    code, found, said = submit("s15era", "data.source=my book.txt", "parallel.shard=8")
    assert code == 0, said
    words = ["train", "s15era", "data.source=my book.txt", "parallel.shard=8", "--name",
             "slurm-70123", "--devices", "4", "--nodes", "2",
             "--rendezvous", "node1:29623"]  # fmt: skip
    threads = str(8 // 4)
    assert found == [[*words, threads]] * 2


def test_a_job_that_is_queued_again_goes_on_with_its_run(submit):
    _, found, _ = submit("s15era", SLURM_RESTART_COUNT="1", DEVICES="1")
    assert found[0][:3] == ["train", "slurm-70123", "--resume"]
    assert found[0][3:5] == ["--devices", "1"]


def test_without_a_preset_it_says_what_to_say(submit):
    code, found, said = submit()
    assert (code, found) == (2, [])
    assert "PRESET" in said


def test_the_pods_of_kubernetes_find_each_other():
    service, job = yaml.safe_load_all((RECIPES / "kubernetes.yaml").read_text(encoding="utf-8"))
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    said = dict(zip(container["args"][::2], container["args"][1::2], strict=True))
    name = job["metadata"]["name"]
    port = service["spec"]["ports"][0]["port"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"job-name": name}
    assert pod["subdomain"] == service["metadata"]["name"]
    assert said["--rendezvous"] == f"{name}-0.{pod['subdomain']}:{port}"
    assert int(said["--nodes"]) == job["spec"]["completions"] == job["spec"]["parallelism"]
    assert int(said["--devices"]) == container["resources"]["limits"]["nvidia.com/gpu"]
    assert job["spec"]["completionMode"] == "Indexed"
    volumes = {each["name"] for each in pod["volumes"]}
    assert {each["name"] for each in container["volumeMounts"]} == volumes
    places = [each["value"] for each in container["env"]]
    assert all(place.startswith("/shared/") for place in places)
