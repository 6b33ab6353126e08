"""`coterie plan PRESET --gpus N`: a layout for many devices, its memory, communication and time."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from coterie.cli.console import console, emit_json, next_step, stderr
from coterie.cli.plan import shown_bytes
from coterie.cli.words import Words

if TYPE_CHECKING:
    from coterie.train.cluster import ClusterPlan, Estimate


def show_cluster(
    target: str, words: Words, gpus: int, nodes: int | None, device: str, memory: float | None,
    *, json: bool,
) -> int:  # fmt: skip
    """Plan a run on many devices and print it; 1 where no layout fits."""
    from coterie.api.planning import plan_devices

    rest, scale = words.take("scale")
    rest, mode = rest.take("mode")
    stderr.print(
        "Counting layouts without memory, seconds for each size of micro-batch.", style="dim"
    )
    found = plan_devices(target, rest.layers(), scale, mode, gpus, nodes, device, memory)
    call = _command(target, words, found)
    if json:
        emit_json({**found.summary(), "command": call})
    else:
        _show(found)
        if call is not None:
            next_step(call)
    return 1 if found.chosen is None else 0


def _command(target: str, given: Words, found: ClusterPlan) -> str | None:
    """Return the call that trains so, on each node."""
    if found.chosen is None or found.refused:
        return None
    keys = {word.partition("=")[0] for word in found.chosen.words}
    kept = [word for word in given.overrides if word.partition("=")[0] not in keys]
    overlays = [f"@{path}" for path in given.overlays]
    call = ["coterie", "train", target, *overlays, *kept, *found.chosen.words]
    if found.gpus > 1:
        call += ["--devices", str(found.gpus // found.nodes)]
    if found.nodes > 1:
        call += ["--nodes", str(found.nodes), "--rendezvous", "HOST:29500", "--name", "RUN"]
    return shlex.join(call)


def _show(found: ClusterPlan) -> None:
    device = found.device
    console.print(
        f"{found.gpus} × {device.name} of {shown_bytes(found.limit)} on {found.nodes} nodes: "
        f"{device.flops / 1e12:,.0f} TFLOP/s, of which products reach {device.products:.0%} and "
        f"steps {found.share:.0%} of that; {device.inside / 1e9:,.0f} GB/s inside a node, "
        f"{device.outside / 1e9:,.1f} between nodes.",
        soft_wrap=True,
    )
    console.print(f"Figures: {device.source}.", style="dim", soft_wrap=True)
    console.print(
        f"{found.parameters:,} parameters, {found.tokens:,} tokens and {found.flops / 1e12:,.1f} "
        f"TFLOP a step; {found.tried:,} layouts.",
        soft_wrap=True,
    )
    if found.chosen is None:
        console.print("\nNo layout fits. The nearest:", soft_wrap=True)
    else:
        _show_chosen(found, found.chosen)
        console.print("\nWhy no other:", soft_wrap=True)
    for each in found.others:
        console.print(f"  – {_told(each)}: {each.reason}", soft_wrap=True)


def _told(each: Estimate) -> str:
    return " ".join(word.removeprefix("parallel.").removeprefix("train.") for word in each.words)


def _show_chosen(found: ClusterPlan, chosen: Estimate) -> None:
    console.print(f"\nThe fastest that fits: {_told(chosen)}", soft_wrap=True)
    parts = ", ".join(f"{name} {shown_bytes(size)}" for name, size in chosen.memory.items())
    console.print(
        f"  memory of a device: {shown_bytes(chosen.memory_bytes)} ({parts})", soft_wrap=True
    )
    console.print("  sent by a device in a step:", soft_wrap=True)
    for flow in chosen.flows:
        told = "hidden behind computation" if flow.overlaps else "waited for"
        console.print(
            f"    {flow.kind}: {shown_bytes(flow.bytes)}, {1e3 * flow.seconds:,.2f} ms, {told}"
            f"  # {flow.formula}",
            soft_wrap=True,
        )
    if not chosen.flows:
        console.print("    nothing", soft_wrap=True)
    console.print(
        f"  step: {1e3 * chosen.seconds:,.1f} ms = {1e3 * chosen.compute:,.1f} computing + "
        f"{1e3 * chosen.idle:,.1f} idle stages + {1e3 * chosen.waiting:,.1f} communication; "
        f"{found.tokens / chosen.seconds:,.0f} tokens/s",
        soft_wrap=True,
    )
    if found.refused:
        console.print(f"  {found.refused}", style="dim", soft_wrap=True)
    console.print(
        f"  efficiency {chosen.efficiency:.0%} of steps without waiting or recomputation, MFU "
        f"{chosen.mfu:.1%}",
        soft_wrap=True,
    )
