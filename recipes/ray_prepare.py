"""A store made by a Ray cluster: python recipes/ray_prepare.py --parts 64 --out store crawl/

Each task prepares a part of the files on whatever node has room, and is started again where it
fails; one joins them all. Words that are not named here are those of `coterie data prepare`. Texts
and store must lie where all nodes see them, or be URLs. Needs `pip install "coterie[ray]"`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import ray


@ray.remote(num_cpus=1, max_retries=3, retry_exceptions=True, scheduling_strategy="SPREAD")
def prepare(words: list[str], place: dict[str, Any], part: str, out: str) -> str:
    """Write one part, as if called in a folder and an environment; return the node that did."""
    coterie = [sys.executable, "-m", "coterie", "data", "prepare"]
    made = [*coterie, *words, "--part", part, "--out", out, "--replace", "--resume"]
    done = subprocess.run(
        made, cwd=place["cwd"], env=os.environ | place["env"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"Part {part}: {done.stderr}")
    return ray.get_runtime_context().get_node_id()


def main() -> None:
    """Read the command line, prepare the parts and join them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--parts", type=int, required=True, help="how many tasks")
    parser.add_argument("--out", type=Path, required=True, help="the store; parts lie beside it")
    parser.add_argument("--valid-fraction", default="0.1", help="share that is held out")
    parser.add_argument("--split", default="documents", help="documents or tail")
    parser.add_argument("--address", default="auto", help="the cluster's")
    arguments, words = parser.parse_known_args()
    ray.init(address=arguments.address)
    out, parts = arguments.out.absolute(), arguments.parts
    beside = out.with_name(f"{out.name}.parts")
    places = [str(beside / str(number)) for number in range(1, parts + 1)]
    own = {name: said for name, said in os.environ.items() if name.startswith("COTERIE_")}
    called = {"cwd": os.getcwd(), "env": own}
    nodes = ray.get([
        prepare.remote(words, called, f"{number}/{parts}", place)
        for number, place in enumerate(places, start=1)
    ])  # fmt: skip
    sys.stderr.write(f"{parts} parts were prepared by {len(set(nodes))} nodes.\n")
    held_out = ["--valid-fraction", arguments.valid_fraction, "--split", arguments.split]
    join = [sys.executable, "-m", "coterie", "data", "join", *places, "--out", str(out), *held_out]
    subprocess.run(join, check=True)
    shutil.rmtree(beside)


if __name__ == "__main__":
    main()
