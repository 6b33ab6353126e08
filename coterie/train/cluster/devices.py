"""What devices do, as published by their makers, and what of it was reached where it was measured.

Rates are per device. A link's rate is what a device can send while it receives as much: half of the
sum of both ways that data sheets name.
"""

from __future__ import annotations

from dataclasses import dataclass

GIGA = 1e9


@dataclass(frozen=True)
class DeviceFigures:
    """One kind of device and the links between them.

    Attributes:
        name: what the command line calls it.
        memory: GiB of one.
        flops: FLOP/s of dense bfloat16 products, accumulated in float32, as published.
        products: share of that which products of 8192³ reach.
        inside: bytes/s that it sends to others of its node.
        outside: bytes/s that it sends to other nodes.
        latency: seconds until a message begins to arrive, inside and outside a node.
        source: of these figures.
    """

    name: str
    memory: float
    flops: float
    products: float
    inside: float
    outside: float
    latency: tuple[float, float]
    source: str


_USUAL = (10e-6, 20e-6)  # a collective's launch and first bytes; not measured by us
_SHARED_MEMORY, _GLOO = 1.3 * GIGA, (2e-4, 2e-4)
_MEASURED = 0.77  # 750–775 of 989 TFLOP/s on one H200 (docs/training.md, “Checking a GPU”)

DEVICES: dict[str, DeviceFigures] = {
    each.name: each
    for each in (
        DeviceFigures(
            "a100", 80, 312e12, _MEASURED, 300 * GIGA, 25 * GIGA, _USUAL,
            "NVIDIA A100 data sheet (SXM, 80 GB; NVLink 600 GB/s both ways), DGX A100: one 200 Gb "
            "adapter a GPU; share of products as an H200's",
        ),
        DeviceFigures(
            "h100", 80, 989e12, _MEASURED, 450 * GIGA, 50 * GIGA, _USUAL,
            "NVIDIA H100 data sheet (SXM; NVLink 900 GB/s both ways), DGX H100: one 400 Gb "
            "adapter a GPU; share of products as an H200's, the same chip",
        ),
        DeviceFigures(
            "h200", 141, 989e12, _MEASURED, 450 * GIGA, 50 * GIGA, _USUAL,
            "NVIDIA H200 data sheet (SXM; NVLink 900 GB/s both ways), one 400 Gb/s adapter a GPU; "
            "share of products measured",
        ),
        DeviceFigures(
            "b200", 180, 2250e12, _MEASURED, 900 * GIGA, 50 * GIGA, _USUAL,
            "NVIDIA DGX B200 data sheet (dense; NVLink 1.8 TB/s both ways), one 400 Gb/s adapter a "
            "GPU; share of products as an H200's",
        ),
        DeviceFigures(
            "l40s", 48, 362e12, _MEASURED, 32 * GIGA, 12.5 * GIGA, _USUAL,
            "NVIDIA L40S data sheet (dense, no NVLink: PCIe 4.0 x16), a 100 Gb/s adapter a GPU; "
            "share of products as an H200's",
        ),
    )
}  # fmt: skip


def here(flops: float, memory: float) -> DeviceFigures:
    """Return this machine as a device: its measured products, and processes that share its memory.

    Args:
        flops: FLOP/s of its products, measured.
        memory: GiB.
    """
    return DeviceFigures(
        "here", memory, flops, 1.0, _SHARED_MEMORY, _SHARED_MEMORY, _GLOO,
        "products measured on this machine; gloo between two processes of one machine of 2 cores: "
        "all_reduce of 16 and 64 MiB at 1.3 GB/s, of 1 KiB in 0.2 ms",
    )  # fmt: skip
