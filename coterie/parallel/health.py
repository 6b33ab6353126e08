"""Which process is lost: when one no longer answers, the others find out which, and say so.

A collective that fails says that the connection broke or that it waited too long, not for whom. So
each process keeps in the store where it is, and why it ended if it knows; whoever is left waiting
says that too, and who says neither hangs or was killed.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator

from torch import distributed
from torch.distributed.distributed_c10d import Store

from coterie.foundation.errors import CoterieError, TrainingError

_LEFT = "left"
_POLL = 0.05  # seconds between looks at what the others say
_BROKEN = re.compile(
    r"gloo|NCCL|Connection (reset|closed|refused)|pair closure|Timed out waiting|Broken pipe"
)


class LostRankError(TrainingError):
    """Another process hangs, was killed, or failed and said why."""


class CrowdedError(TrainingError):
    """The memory of this process did not suffice for its part of a step."""


class Health:
    """What this process tells the others of itself, and they of them.

    Args:
        store: that all processes share.
        rank, world: this process, and how many there are.
        seconds: how long to wait for the word of the others once one is lost.
    """

    def __init__(self, store: Store, rank: int, world: int, seconds: float = 5.0) -> None:
        self._store, self._rank, self._world, self._seconds = store, rank, world, seconds
        self._beats = 0
        self._last: dict[int, tuple[str, float]] = {}  # what each said last, and when it was new
        self._told: set[int] = set()
        self._looked = 0.0

    def at(self, place: str) -> None:
        """Say where this process is: "step 12"."""
        self._say("at", place)

    def beat(self, leaving: bool = False) -> None:
        """Give a sign of life, or say that none will follow."""
        self._beats += 1
        self._say("beat", _LEFT if leaving else str(self._beats))

    def silent(self, seconds: float) -> list[str]:
        """Return a sentence for each process that gave no sign for so long, once per silence.

        Must be called several times within that time; what slept itself judges nobody.
        """
        now, slept = time.monotonic(), time.monotonic() - self._looked > seconds / 2
        self._looked, found = now, []
        for rank in range(self._world):
            said = self._heard("beat", rank)
            known, since = self._last.get(rank, ("", now))
            if slept or said != known or said in ("", _LEFT):
                self._last[rank] = said, now
                self._told.discard(rank)
            elif now - since >= seconds and rank not in self._told:
                self._told.add(rank)
                place = self._heard("at", rank) or "its beginning"
                found.append(f"Nothing was heard of rank {rank} for {now - since:.0f} s "
                             f"(last at {place}).")  # fmt: skip
        return found

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Tell the others if this process fails inside the block, or find out who is lost.

        Raises:
            LostRankError: another process is; its rank and its last place are named.
        """
        try:
            yield
        except Exception as error:
            if not is_broken(error):
                said = error.message if isinstance(error, CoterieError) else repr(error)
                with contextlib.suppress(RuntimeError):  # nobody is left to be told
                    self._say("ended", said)
                raise
            try:
                said = self._who()
            except RuntimeError:
                said = "The process that keeps the store of all others cannot be reached."
            raise LostRankError(said, hint=_GO_ON) from error

    def crowded(self, error: Exception) -> str | None:
        """Return what the process said whose memory did not suffice, if an error comes of that."""
        if isinstance(error, CrowdedError):
            self._say("crowded", error.message)
        elif not is_broken(error):
            return None
        return next(filter(None, (self._heard("crowded", r) for r in range(self._world))), None)

    def _who(self) -> str:
        """Return in a sentence who is lost."""
        self._say("waits", "1")
        silent = [rank for rank in range(self._world) if rank != self._rank]
        end = time.monotonic() + self._seconds
        while silent and time.monotonic() < end:
            silent = [
                r for r in silent if not self._heard("ended", r) and not self._heard("waits", r)
            ]
            time.sleep(_POLL if silent else 0)
        for rank in range(self._world):
            if why := self._heard("ended", rank):
                return f"Rank {rank} ended: {why}"
        if not silent:
            return "The connection between the processes broke, though each still answers."
        places = {
            r: f"rank {r} (last at {self._heard('at', r) or 'its beginning'})" for r in silent
        }
        who = " and ".join(places.values())
        return f"No answer from {who}: it hangs, was killed, or its host was lost."

    def _say(self, what: str, said: str) -> None:
        self._store.set(f"coterie/{what}/{self._rank}", said)

    def _heard(self, what: str, rank: int) -> str:
        key = f"coterie/{what}/{rank}"
        return self._store.get(key).decode() if self._store.check([key]) else ""


_GO_ON = (
    "What was saved is sound: go on from the latest checkpoint with coterie train --resume RUN, or "
    "let --max-restarts do so."
)


def is_broken(error: BaseException) -> bool:
    """Return whether an error says that other processes cannot be reached."""
    known = isinstance(error, distributed.DistError | distributed.DistStoreError)
    return known or (isinstance(error, RuntimeError) and bool(_BROKEN.search(str(error))))
