"""The machine: versions, what torch offers, and the ceilings that figures are shares of."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import time
from collections.abc import Callable
from typing import Any

import torch

from gpu_checks.registry import Bench, check

_LIBRARIES = ("torch", "triton", "numpy", "pydantic", "cyclopts", "rich", "safetensors", "tiktoken",
              "tokenizers", "pyarrow", "matplotlib", "transformers", "flash_attn")  # fmt: skip
_DTYPES = {"float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16,
           "float16": torch.float16}  # fmt: skip


@check("machine.environment", "machine", limit=120)
def environment(bench: Bench) -> dict[str, Any]:
    """Tell versions, the device, and which newer parts of torch are there."""
    figures: dict[str, Any] = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            figures[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            figures[name] = "missing"
    functional = torch.nn.functional
    figures["torch_has"] = {
        "F.grouped_mm": hasattr(functional, "grouped_mm"),
        "F.linear_cross_entropy": hasattr(functional, "linear_cross_entropy"),
        "optim.Muon": hasattr(torch.optim, "Muon"),
        "optim.Adafactor": hasattr(torch.optim, "Adafactor"),
        "nn.attention.varlen": importlib.util.find_spec("torch.nn.attention.varlen") is not None,
    }
    figures["matmul_precision"] = torch.get_float32_matmul_precision()
    if bench.cuda:
        properties = torch.cuda.get_device_properties(0)
        figures["gpu"] = properties.name
        figures["capability"] = f"{properties.major}.{properties.minor}"
        figures["memory_gib"] = round(properties.total_memory / 2**30, 1)
        figures["cuda"] = torch.version.cuda
        figures["multiprocessors"] = properties.multi_processor_count
    return figures


def median_seconds(bench: Bench, call: Callable[[], Any], repeats: int, warm: int = 2) -> float:
    """Return the median time of a call: device events on CUDA, the clock elsewhere."""
    for _ in range(warm):
        call()
    bench.wait()
    times = []
    for _ in range(repeats):
        if bench.cuda:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            call()
            end.record()
            bench.wait()
            times.append(begin.elapsed_time(end) / 1e3)
        else:
            started = time.perf_counter()
            call()
            times.append(time.perf_counter() - started)
    return sorted(times)[len(times) // 2]


def product_rate(bench: Bench, kind: str, side: int, repeats: int = 10) -> float:
    """Return the rate of side³ matrix products of random numbers, in TFLOP/s."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if kind == "tf32" else "highest")
    try:
        a, b = (torch.randn(side, side, device=bench.device).to(_DTYPES[kind]) for _ in range(2))
        seconds = median_seconds(bench, lambda: torch.mm(a, b), repeats)
    finally:
        torch.set_float32_matmul_precision(before)
    return 2 * side**3 / seconds / 1e12


@check("machine.ceilings", "machine", limit=60)
def ceilings(bench: Bench) -> dict[str, Any]:
    """Measure matrix products (TFLOP/s) and a copy (GB/s, read and written)."""
    figures: dict[str, Any] = {}
    kinds = ("float32", "tf32", "bfloat16", "float16") if bench.cuda else ("float32", "bfloat16")
    for side in (256,) if bench.tiny else (2048, 8192):
        for kind in kinds:
            repeats = 4 if kind == "float32" else 10
            figures[f"{kind} {side}"] = round(product_rate(bench, kind, side, repeats), 3)
    source = torch.randn(1 << (20 if bench.tiny else 29), device=bench.device)
    target = torch.empty_like(source)
    seconds = median_seconds(bench, lambda: target.copy_(source), 10)
    figures["copy GB/s"] = round(2 * source.nbytes / seconds / 1e9, 1)
    figures["matrix-vector read GB/s"] = round(read_rate(bench), 1)
    return figures


def read_rate(bench: Bench) -> float:
    """Return the rate at which a matrix-vector product reads its matrix, in GB/s."""
    matrix = torch.randn(1 << (6 if bench.tiny else 13), 1 << 14, device=bench.device)
    vector = torch.randn(1 << 14, device=bench.device)
    return matrix.nbytes / median_seconds(bench, lambda: torch.mv(matrix, vector), 10) / 1e9
