"""The processes of a run, as its trainer asks for them.

`ALONE` is the only process of a run: it sums over itself, and nothing of `torch.distributed` is
touched. Everything a decision rests on that processes may see differently (time, memory, signals)
goes through `agree` or `any`, so that all of them do the same.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed
from torch.distributed import distributed_c10d

from coterie.foundation.errors import CoterieError, RunError
from coterie.parallel.health import Health
from coterie.parallel.lines import hang_up, noted

Value = TypeVar("Value")
_NUMBERS = itertools.count()  # of what the first process told, in its store
_FAILED, _MOMENT = "coterie/failed", 2.0
_POLL = 0.05  # seconds between looks at what another process does


class OtherRankError(CoterieError):
    """Another process failed and tells why; this one ends without a word."""

    told = True


class Ranks:
    """One process among none.

    Attributes:
        rank: of this process, from 0.
        world: how many there are.
        group: torch's group of them; None: its default one.
    """

    rank = 0
    world = 1
    group: distributed.ProcessGroup | None = None

    @property
    def is_first(self) -> bool:
        """Whether this process writes, shows and tells."""
        return self.rank == 0

    def total(self, numbers: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes, in its place."""
        return numbers

    def any(self, said: bool) -> bool:
        """Return whether any process says so."""
        return said

    def most(self, share: float | None) -> float | None:
        """Return the largest number that any process has; None: none can tell."""
        return share

    def gather(self, value: Value) -> list[Value]:
        """Return the values of all processes, in order; small ones, for they are pickled."""
        return [value]

    def from_first(self, make: Callable[[], Value]) -> Value:
        """Return what `make` returns on the first process, to all; others wait however long.

        Raises:
            CoterieError: what it raised there, everywhere.
        """
        return make()

    def at(self, place: str) -> None:
        """Say where this process is, for others to tell if it is lost."""

    def beat(self, leaving: bool = False) -> None:
        """Give a sign of life; see `coterie.parallel.waiting`."""

    def silent(self, seconds: float) -> list[str]:
        """Return a sentence for each process that gave none for so long."""
        return []

    def told(self) -> contextlib.AbstractContextManager[None]:
        """Tell the others if this process fails inside the block, or find out which is lost.

        Raises:
            LostRankError: another is; see `coterie.parallel.health`.
        """
        return contextlib.nullcontext()

    def crowded(self, error: Exception) -> str | None:
        """Return what the process said whose memory did not suffice, if an error comes of that.

        The others are told, and hear it once `rejoin` cuts the lines on which they wait.
        """
        return None

    def rejoin(self, timeout: float) -> None:
        """Leave all groups and join the same processes anew, all of which do so.

        Args:
            timeout: seconds after which a process that others wait for counts as lost.
        """

    def first_then(self, make: Callable[[], Value]) -> Value:
        """Call `make` on the first process and then on the others, which find its files."""
        return make()

    def agree(self, facts: Mapping[str, object]) -> None:
        """Make sure that all processes have the same facts, by name.

        Raises:
            RunError: they have not; every one that differs is told, with both values.
        """


ALONE = Ranks()


class Some(Ranks):
    """This process among those of a group, as far as they exchange small values."""

    def __init__(self, group: distributed.ProcessGroup) -> None:
        self.rank, self.world, self.group = group.rank(), group.size(), group

    def gather(self, value: Value) -> list[Value]:
        found: list[Any] = [None] * self.world
        distributed.all_gather_object(found, value, group=self.group)
        return found


class Several(Ranks):
    """This process among those of torch's default group.

    Args:
        device: where numbers travel.
    """

    def __init__(self, device: torch.device) -> None:
        self.rank = distributed.get_rank()
        self.world = distributed.get_world_size()
        self._device = device
        self._health = Health(distributed_c10d._get_default_store(), self.rank, self.world)

    def at(self, place: str) -> None:
        self._health.at(place)

    def beat(self, leaving: bool = False) -> None:
        self._health.beat(leaving)

    def silent(self, seconds: float) -> list[str]:
        return self._health.silent(seconds)

    def told(self) -> contextlib.AbstractContextManager[None]:
        return self._health.told()

    def crowded(self, error: Exception) -> str | None:
        return self._health.crowded(error)

    def rejoin(self, timeout: float) -> None:
        hang_up()
        store = distributed_c10d.PrefixStore("again", distributed_c10d._get_default_store())
        distributed.destroy_process_group()
        with noted():
            distributed.init_process_group(
                "gloo", store=store, rank=self.rank, world_size=self.world,
                timeout=datetime.timedelta(seconds=timeout),
            )  # fmt: skip
        self._health = Health(store, self.rank, self.world)

    def total(self, numbers: Tensor) -> Tensor:
        distributed.all_reduce(numbers)
        return numbers

    def any(self, said: bool) -> bool:
        return self.most(float(said)) == 1.0

    def most(self, share: float | None) -> float | None:
        held = torch.tensor(-1.0 if share is None else share, device=self._device)
        distributed.all_reduce(held, distributed.ReduceOp.MAX)
        return None if held < 0 else float(held)

    def gather(self, value: Value) -> list[Value]:
        found: list[Any] = [None] * self.world
        distributed.all_gather_object(found, value)
        return found

    def from_first(self, make: Callable[[], Value]) -> Value:
        # Through the store, whose waiting has no time limit: preparing data may take hours.
        key, store = (
            f"coterie/first/{next(_NUMBERS)}",
            distributed_c10d._get_default_store(),
        )
        if self.is_first:
            try:
                value, error = make(), None
            except CoterieError as problem:
                _tell(store, key, (None, (problem.message, problem.hint)))
                raise
            _tell(store, key, (value, error))
            return value
        while not store.check([key]):
            time.sleep(_POLL)
        value, error = pickle.loads(store.get(key))
        if error is not None:
            raise OtherRankError(*error)
        return value  # type: ignore[no-any-return]

    def agree(self, facts: Mapping[str, object]) -> None:
        every = self.gather(dict(facts))
        told = [
            f"{name}: {every[0].get(name)!r} on rank 0, {other.get(name)!r} on rank {rank}"
            for rank, other in enumerate(every)
            for name in dict.fromkeys([*every[0], *other])
            if every[0].get(name) != other.get(name)
        ]
        if told:
            more = f"\n  … and {len(told) - 9} more" if len(told) > 9 else ""
            raise RunError(
                "The processes of this run do not agree:\n  " + "\n  ".join(told[:9]) + more,
                hint="Give every node the same command, settings, data and packages.",
            )

    def tell_failed(self) -> None:
        """Let the others know that the first process told why the run ended."""
        _tell(distributed_c10d._get_default_store(), _FAILED, None)

    def first_failed(self) -> bool:
        """Return whether the first process tells why the run ended, within a moment."""
        store, end = distributed_c10d._get_default_store(), time.monotonic() + _MOMENT
        while time.monotonic() < end:
            with contextlib.suppress(RuntimeError):  # it has gone, and its store with it
                if store.check([_FAILED]):
                    return True
            time.sleep(_POLL)
        return False

    def first_then(self, make: Callable[[], Value]) -> Value:
        made: list[Value] = []
        self.from_first(lambda: made.append(make()))
        return made[0] if made else make()


def _tell(store: Any, key: str, said: object) -> None:
    store.set(key, pickle.dumps(said))


def first_of(said: Sequence[str | None]) -> str | None:
    """Return the first sentence of any process, with its rank, if one said anything."""
    return next((f"rank {rank}: {each}" for rank, each in enumerate(said) if each), None)
