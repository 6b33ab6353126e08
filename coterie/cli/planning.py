"""`coterie plan`: settings with which a run fits into memory, and what each of them costs."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from coterie.cli.cluster import show_cluster
from coterie.cli.console import console, emit_json, next_step, stderr
from coterie.cli.plan import shown_bytes
from coterie.cli.words import Words, one_target, read_words
from coterie.foundation.errors import UserError

if TYPE_CHECKING:
    from coterie.train.fitting import Candidate, Fitting

_USAGE = "For example: coterie plan s15era --memory 12"
_GROUPS = ("weights", "gradients", "optimizer", "average", "saving", "activations")


def plan(
    *words: str,
    memory: float | None = None,
    gpus: int | None = None,
    nodes: int | None = None,
    device: str = "h100",
    json: bool = False,
) -> int:
    """Fit a run into memory: `coterie plan PRESET [key=value ...] [@overlay.yaml ...] --memory 12`.

    Counts what a step would hold and, where that is more than the device has, looks for settings
    that hold less, the cheapest first: more micro-batches, selective and full activation
    checkpointing, bfloat16 where the device has units for it, moments of 8 bits, on a GPU also
    activations and moments in host memory, and at last another optimizer, which changes the
    training itself. With --gpus, looks for the fastest layout of the run on many devices that fits:
    memory of each, what is sent, time. Nothing is run. Exit code 1: nothing fits.

    Parameters
    ----------
    words
        The preset, `key=value` changes and `@file.yaml` overlays, in any order.
    memory
        GiB of the device; by default all that this one has. 0.3 and a twentieth of the rest are
        kept in reserve for what the estimate does not see.
    gpus
        Devices to divide the run among.
    nodes
        Over how many nodes these are divided evenly; by default 8 to a node.
    device
        Which: a100, h100, h200, b200 or l40s, by published figures; `here` for this one, with the
        rate measured on it.
    json
        Print JSON: every candidate with its memory by part, the proposal, the command.
    """
    from coterie.api.planning import fit_run

    parsed = read_words(words)
    target = one_target(parsed, "preset", _USAGE)
    if gpus is not None:
        return show_cluster(target, parsed, gpus, nodes, device, memory, json=json)
    if nodes is not None or device != "h100":
        raise UserError(
            "--nodes and --device say more of many devices, and --gpus how many.",
            hint=f"coterie plan {target} --gpus 64 --nodes 8",
        )
    rest, scale = parsed.take("scale")
    rest, mode = rest.take("mode")
    stderr.print("Counting steps without memory, seconds for each setting.", style="dim")
    found = fit_run(target, rest.layers(), scale, mode, memory)
    call = _command(target, parsed, (found.proposal or found.least).words)
    if json:
        emit_json(_as_json(found, call))
    else:
        _show(found, call)
    return 1 if found.proposal is None else 0


def _command(target: str, given: Words, words: Iterable[str]) -> str:
    """Return the call that trains so; a word given before for the same key is left out."""
    keys = {word.partition("=")[0] for word in words}
    kept = [word for word in given.overrides if word.partition("=")[0] not in keys]
    overlays = [f"@{path}" for path in given.overlays]
    return shlex.join(["coterie", "train", target, *overlays, *kept, *words])


def _as_json(found: Fitting, call: str) -> dict[str, Any]:
    def told(each: Candidate) -> dict[str, Any]:
        return {**asdict(each), "memory_bytes": each.memory_bytes}

    return {
        "memory_limit": found.limit,
        "reserve": found.reserve,
        "device": found.device,
        "candidates": [told(each) for each in found.candidates],
        "proposal": None if found.proposal is None else told(found.proposal),
        "least": told(found.least),
        "least_memory_limit": found.least_limit,
        "left_out": found.left_out,
        "command": None if found.proposal is None else call,
    }


def _show(found: Fitting, call: str) -> None:
    """Print the candidates, and what to do."""
    groups = [name for name in _GROUPS if any(name in each.groups for each in found.candidates)]
    rows = [[*groups, "in all", "", "train."]]
    for each in found.candidates:
        sizes = [shown_bytes(each.groups.get(name, 0)) for name in groups]
        words = " ".join(word.removeprefix("train.") for word in each.words) or "as it is"
        fits = "proposed" if each is found.proposal else "fits" if each.fits else "too much"
        rows.append([*sizes, shown_bytes(each.memory_bytes), fits, words])
    for row in rows:  # not a table of rich, which would cut the words
        console.print("".join(f"{cell:>12}" for cell in row[:-1]), "", row[-1], soft_wrap=True)
    limit, least = shown_bytes(found.limit), found.least
    kept = f"{limit} less {shown_bytes(found.reserve)} in reserve, on {found.device}"
    for each in found.left_out:
        console.print(f"Not tried: {each}.", style="dim", soft_wrap=True)
    if found.proposal is None:
        console.print(
            f"\nNothing of this fits into {kept}. The least is {shown_bytes(least.memory_bytes)}, "
            f"which fits into {shown_bytes(found.least_limit)}, at these costs:",
            soft_wrap=True,
        )
        _show_costs(least)
        console.print("Or lower model.context, model.width or model.layers: another model.")
        next_step(f"{call}  # on a device of {shown_bytes(found.least_limit)} or more")
        return
    if not found.proposal.words:
        console.print(f"\nIt fits as it is into {kept}.", soft_wrap=True)
    else:
        console.print(f"\nThe cheapest that fits into {kept}, and what it costs:", soft_wrap=True)
        _show_costs(found.proposal)
    next_step(call)


def _show_costs(candidate: Candidate) -> None:
    for cost in candidate.costs:
        console.print(f"  – {cost}", soft_wrap=True)
