"""A store on a real S3-compatible server: written, verified, trained on, damaged and refused.

    pip install "moto[s3,server]" s3fs      # neither is needed otherwise
    python scripts/s3_store.py

Prints what each command exited with and exits with 1 if any was otherwise.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

STORE = "s3://bucket/store"
SMALL = ["model.layers=1", "model.width=32", "train.steps=2", "train.batch_size=2"]
COMMANDS = {
    "prepare": ["data", "prepare", "s3://bucket/in", "--out", STORE, "--tokenizer", "bytes",
                "--shard-tokens", "5000"],
    "verify": ["data", "verify", STORE],
    "train": ["train", "quickstart", f"data.store={STORE}", *SMALL, "--name", "on-s3"],
}  # fmt: skip


def main() -> int:
    """Run the commands against a server of this process."""
    server = importlib.import_module("moto.server").ThreadedMotoServer(port=0)
    server.start()
    work = Path(tempfile.mkdtemp(prefix="s3-"))
    os.environ.update(
        AWS_ACCESS_KEY_ID="a",
        AWS_SECRET_ACCESS_KEY="b",
        AWS_DEFAULT_REGION="us-east-1",
        AWS_ENDPOINT_URL=f"http://127.0.0.1:{server.get_host_and_port()[1]}",
        COTERIE_CACHE=str(work / "cache"),
        COTERIE_RUNS=str(work / "runs"),
    )
    run = importlib.import_module("coterie.cli.app").run
    mirror = importlib.import_module("coterie.data.mirror")
    system = importlib.import_module("s3fs").S3FileSystem()
    system.mkdir("bucket")
    text = "".join(f"{n} and {n} make {2 * n}, says the fool.\n\n" for n in range(400))
    system.pipe_file("bucket/in/text.txt", text.encode())

    def forget() -> None:
        """Begin as another machine would."""
        shutil.rmtree(work / "cache" / "stores-elsewhere")
        mirror._mirrored.cache_clear()

    found = {"prepare": run(COMMANDS["prepare"])}
    forget()
    found |= {name: run(COMMANDS[name]) for name in ("verify", "train")}
    system.pipe_file("bucket/store/train-00001.bin", bytes(10_000))
    forget()
    found["verify what was damaged"] = run(COMMANDS["verify"])
    server.stop()
    shutil.rmtree(work)
    print(found)
    return 0 if list(found.values()) == [0, 0, 0, 2] else 1


if __name__ == "__main__":
    sys.exit(main())
