"""A run divided by FSDP2 among one process, its collectives NCCL's: the losses of a plain one."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import distributed
from torch.distributed.fsdp import FSDPModule

from coterie.parallel import Parallel
from coterie.parallel.mesh import build_mesh
from coterie.parallel.ranks import Several
from coterie.parallel.together import Together
from coterie.train.divided import DividedTrainable
from coterie.train.session import Session, make_stepper
from gpu_checks.registry import Bench, Cases, check
from gpu_checks.speed import session_of, shapes, timed_steps

_ROUNDS = 3


@contextlib.contextmanager
def group(bench: Bench) -> Iterator[torch.device]:
    """Join a group of this process alone, by NCCL on a GPU, and leave it afterwards."""
    device = torch.device("cuda", 0) if bench.cuda else torch.device("cpu")
    store = distributed.FileStore(str(bench.folder / f"store-{time.monotonic_ns()}"), 1)
    distributed.init_process_group(
        "nccl" if bench.cuda else "gloo", store=store, rank=0, world_size=1,
        device_id=device if bench.cuda else None,
    )  # fmt: skip
    try:
        yield device
    finally:
        distributed.destroy_process_group()


def divided(session: Session, device: torch.device, **said: Any) -> Session:
    """Return the session with its decoder divided among one process, as among several."""
    if not hasattr(FSDPModule, "set_reduce_scatter_unused_params"):
        # torch before 2.13: experts without tokens on one of several processes; here is one.
        FSDPModule.set_reduce_scatter_unused_params = lambda *_: None
    settings, parallel, ranks = session.settings, Parallel(**said), Several(device)
    mesh = build_mesh(parallel.sizes(1), device)
    together = Together(ranks, mesh, parallel, session.decoder)
    trainable = DividedTrainable(session.decoder)
    session.stepper = make_stepper(
        settings, session.decoder, trainable.optimizer(settings.train.optimizer, ranks),
        session.precision, trainable=trainable, together=together,
    )  # fmt: skip
    return session


def losses(session: Session, steps: int) -> list[float]:
    """Return the losses of the first steps."""
    with session.loader() as loader:
        batches = loader.iterate(0)
        return [session.stepper(step, next(batches)).loss for step in range(steps)]


@check("parallel.fsdp", "train", limit=200)
def fsdp(bench: Bench) -> dict[str, Any]:
    """Losses of steps divided among one process beside plain ones, and what dividing costs."""
    cases, steps = Cases(bench), 3 if bench.tiny else 50
    wanted = [
        ("fine", "float32", {}), ("fine", "bfloat16", {}), ("coarse dense twin", "float32", {}),
        ("large", "bfloat16", {}), ("large dense twin", "bfloat16", {}),
        ("large dense twin", "bfloat16", {"gather": "bfloat16"}),
    ]  # fmt: skip
    with group(bench) as device:
        for shape, kind, said in bench.some(wanted, 3):
            name = " ".join([shape, kind, *map(str, said.values())])
            with cases(name):
                precision = kind if bench.cuda else "float32"
                model, windows = shapes(bench)[shape]
                train = {"precision": precision, "cuda_graph": False}
                count = min(steps, 12) if shape.startswith("large") else steps
                plain = session_of(bench, model, windows, **train)
                other = divided(session_of(bench, model, windows, **train), device, **said)
                pairs = list(zip(losses(plain, count), losses(other, count), strict=True))
                apart = [abs(one - two) / one for one, two in pairs]
                figures = {"first apart": apart[0], "most apart": max(apart), "steps": count,
                           "equal": sum(one == two for one, two in pairs)}  # fmt: skip
                cases.figures[name] = figures
                figures |= costs(bench, plain, other)
                exact = precision == "float32"
                assert apart[0] <= (1e-6 if exact else 1e-3), figures
                assert max(apart) <= (1e-5 if exact else 2e-2), figures
            del plain, other
            if bench.cuda:
                torch.cuda.empty_cache()
    return cases.result()


def costs(bench: Bench, plain: Session, other: Session) -> dict[str, Any]:
    """Return the times of a step by turns, and their ratio."""
    times: dict[str, list[float]] = {"plain": [], "divided": []}
    for _ in range(1 if bench.tiny else _ROUNDS):
        for name, session in (("plain", plain), ("divided", other)):
            times[name].append(timed_steps(bench, session, 1 if bench.tiny else 7, warm=2))
    ratios = sorted(two / one for one, two in zip(times["plain"], times["divided"], strict=True))
    told = {f"{name} ms": round(1e3 * statistics.median(each), 2) for name, each in times.items()}
    return {**told, "ratio": round(statistics.median(ratios), 3),
            "ratios": [round(each, 3) for each in ratios]}  # fmt: skip
