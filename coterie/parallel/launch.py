"""How the processes of a run begin: by torch's elastic agent, and joined by what it tells them.

Any launcher that sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT will do: torchrun, Slurm, Ray.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence

import torch
from torch import distributed
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.distributed.rendezvous import rendezvous

from coterie.foundation.errors import CoterieError
from coterie.parallel.lines import noted
from coterie.parallel.ranks import ALONE, OtherRankError, Ranks, Several


def is_launched() -> bool:
    """Whether a launcher started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def restarts() -> int:
    """Return how often the launcher has started the processes anew."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def _attempt() -> str:
    """Return what keeps the words of one start of the processes from those of the next.

    torch's agent keeps its store when it starts them anew, with the addresses of those that are
    gone. Agents of several machines may count differently, so there they stay as they are.
    """
    one_machine = os.environ.get("LOCAL_WORLD_SIZE") == os.environ.get("WORLD_SIZE")
    return f"coterie/{restarts() if one_machine else 0}"


@contextlib.contextmanager
def joined(timeout: float, alone: bool = False) -> Iterator[Ranks]:
    """Join the processes that a launcher started, inside the block; `ALONE` if none did.

    Args:
        timeout: seconds after which a process that others wait for counts as lost.
        alone: be a group of one if none did, for an engine that asks for a group.

    Raises:
        OtherRankError: in place of an error that the first process tells as well.
    """
    if not is_launched() and not alone:
        yield ALONE
        return
    if "RANK" not in os.environ:  # a launcher may have started one process alone
        place = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
        os.environ.update(place)
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    store, rank, world = next(rendezvous("env://"))
    with noted():
        distributed.init_process_group(
            backend, store=PrefixStore(_attempt(), store), rank=rank, world_size=world,
            timeout=datetime.timedelta(seconds=timeout),
        )  # fmt: skip
    ranks = Several(device)
    try:
        yield ranks
    except CoterieError as error:
        if ranks.is_first:
            ranks.tell_failed()
            raise
        if isinstance(error, OtherRankError) or ranks.first_failed():
            raise OtherRankError(error.message, error.hint) from error
        raise CoterieError(f"Rank {ranks.rank}: {error.message}", error.hint) from error
    finally:
        distributed.destroy_process_group()


def launch(
    words: Sequence[str], *, devices: int, nodes: int, rendezvous: str | None, max_restarts: int
) -> int:
    """Run a command of Coterie in several processes and return its exit code.

    Args:
        words: the command's.
        devices: processes on this node.
        nodes: how many nodes run this same call.
        rendezvous: HOST:PORT of one of them, where they meet; None: there is one node.
        max_restarts: how often all are started anew where one was lost.
    """
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // devices, 1)))
    config = LaunchConfig(
        min_nodes=nodes,
        max_nodes=nodes,
        nproc_per_node=devices,
        run_id="coterie",
        rdzv_backend="c10d",
        rdzv_endpoint=rendezvous or "localhost:0",
        max_restarts=max_restarts,
        monitor_interval=0.2,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "coterie", *words)
    except ChildFailedError as error:
        codes = [failure.exitcode for failure in error.failures.values()]
        return next((code for code in codes if code > 0), 1)
    except SignalException as error:
        return 130 if error.sigval == signal.SIGINT else 143
    return 0
