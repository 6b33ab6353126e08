"""Batches of a store of 5 GB beside those of a small one: opening, time, memory left held.

    python benchmarks/large_store.py [--gigabytes 5] [--batches 5000]

The shard is a sparse file, which takes no room on disk and is read like any other, through the
same two ways as a store's: mapped, and by `preadv`, which is what batches are read with. Every
size is measured in a process of its own. Memory is what the process has of its own (anonymous) and
of files' pages mapped into it, after the batches less before the first.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from coterie.data import BatchLoader, TokenArray
from coterie.data.manifest import FileRecord
from coterie.data.shards import ShardFile

_DTYPE = np.dtype("<u2")


def held() -> dict[str, float]:
    """Return the resident MB of this process: its own, and those of files."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    sizes = {name: rest.split()[0] for name, _, rest in (each.partition(":") for each in lines)
             if name in ("RssAnon", "RssFile")}  # fmt: skip
    return {name: int(size) / 1024 for name, size in sizes.items()}


def measured(path: Path, batches: int) -> dict[str, float]:
    count = path.stat().st_size // _DTYPE.itemsize
    record = FileRecord(file=path.name, count=count, sha256="0" * 64)
    BatchLoader(TokenArray([np.zeros(10_000, _DTYPE)]), 256, 32, seed=1).batch(0)  # imports
    before, begin = held(), time.perf_counter()
    shards = [np.memmap(path, dtype=_DTYPE, mode="r")]
    tokens = TokenArray(shards, None, None, [ShardFile(path.parent, record, _DTYPE)])
    loader = BatchLoader(tokens, 256, 32, seed=1)
    loader.batch(0)
    opened, begin = time.perf_counter() - begin, time.perf_counter()
    for number in range(1, batches + 1):
        loader.batch(number)
    seconds, after = time.perf_counter() - begin, held()
    return {
        "open_ms": 1e3 * opened, "batch_us": 1e6 * seconds / batches,
        **{name: after[name] - before[name] for name in after},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=5.0)
    parser.add_argument("--batches", type=int, default=5000)
    parser.add_argument("--one", type=Path, help="measure this file, and print JSON")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measured(given.one, given.batches)))
        return
    print("| shard | opened, ms | a batch of 32 × 256, µs | own memory, MB | mapped pages, MB |")
    print("|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "train-00000.bin")
        for gigabytes in (0.05, given.gigabytes):
            with path.open("wb") as file:
                file.truncate(round(gigabytes * 1e9) // 2 * 2)
            command = [sys.executable, __file__, "--one", str(path), "--batches",
                       str(given.batches)]  # fmt: skip
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found = json.loads(done.stdout)
            print(f"| {gigabytes:g} GB | {found['open_ms']:.1f} | {found['batch_us']:.0f} | "
                  f"{found['RssAnon']:+.1f} | {found['RssFile']:+.1f} |")  # fmt: skip


if __name__ == "__main__":
    main()
