"""Several processes for a test: they start once, keep warm, and run functions of test modules."""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import functools
import importlib
import os
import queue
import tempfile
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import distributed, multiprocessing

from coterie.parallel.lines import noted

_SECONDS = 120.0


def _work(rank: int, world: int, place: str, asked: Any, answers: Any) -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    store = distributed.FileStore(f"{place}/store", world)
    with noted():
        distributed.init_process_group("gloo", store=store, rank=rank, world_size=world)
    while (job := asked.get()) is not None:
        module, name, arguments, environment, seconds = job
        os.environ.update(environment)
        faulthandler.dump_traceback_later(seconds)  # where a rank that hangs stands
        try:
            found = getattr(importlib.import_module(module), name)(*arguments)
            answers.put((rank, True, found))
        except BaseException:
            answers.put((rank, False, traceback.format_exc()))
        faulthandler.cancel_dump_traceback_later()
    distributed.destroy_process_group()


class Processes:
    """A group of processes, joined by gloo over a file, one thread each."""

    def __init__(self, world: int) -> None:
        self.world, self._broken = world, False
        context = multiprocessing.get_context("spawn")
        self._place = tempfile.TemporaryDirectory()
        self._asked = [context.Queue() for _ in range(world)]
        self._answers = context.Queue()
        self._processes = [
            context.Process(
                target=_work,
                args=(rank, world, self._place.name, self._asked[rank], self._answers),
                daemon=True,
            )
            for rank in range(world)
        ]
        for process in self._processes:
            process.start()
        atexit.register(self.close)

    def run(
        self, function: Callable[..., Any], *arguments: Any, seconds: float = _SECONDS
    ) -> list[Any]:
        """Return what a function of a module returns on each rank, given the same arguments.

        Raises:
            AssertionError: it raised somewhere, or a rank (which is named) did not end in time.
        """
        assert not self._broken, "a rank was lost in an earlier call"
        environment = {k: v for k, v in os.environ.items() if k.startswith("COTERIE_")}
        job = (function.__module__, function.__qualname__, arguments, environment, seconds)
        for asked in self._asked:
            asked.put(job)
        found: dict[int, Any] = {}
        while len(found) < self.world:
            try:
                rank, well, value = self._answers.get(timeout=seconds + 2)
            except queue.Empty:
                self._broken = True
                missing = sorted(set(range(self.world)) - set(found))
                raise AssertionError(f"ranks {missing} did not answer in {seconds:g} s") from None
            if not well:
                self._broken = True
                raise AssertionError(f"rank {rank} of {self.world} failed:\n{value}")
            found[rank] = value
        return [found[rank] for rank in range(self.world)]

    def close(self) -> None:
        """End the processes."""
        for asked in self._asked:
            with contextlib.suppress(ValueError, OSError):
                asked.put(None)
        for process in self._processes:
            process.join(0.0 if self._broken else 5.0)
            if process.is_alive():
                process.kill()
        self._processes = []
        self._place.cleanup()
        atexit.unregister(self.close)


@functools.cache
def _pool(world: int) -> list[Processes]:
    return []


def run(
    world: int, function: Callable[..., Any], *arguments: Any, seconds: float = _SECONDS
) -> list[Any]:
    """Return what a function of a test module returns on each of some warm processes."""
    pool = _pool(world)
    if not pool or pool[0]._broken:
        for old in pool:
            old.close()
        pool[:] = [Processes(world)]
    return pool[0].run(function, *arguments, seconds=seconds)


def close_all() -> None:
    """End all warm processes."""
    for world in range(1, 9):
        for each in _pool(world):
            each.close()
        _pool(world).clear()
