"""How much of its time a process spends in messages to others, and which of them is silent.

Processes that share each step take the same time for it, however slow one of them is: the others
wait for it inside collectives. So a thread looks, fifty times a second, whether the one that trains
is inside of one. The process that the others wait for is the one that waits least. The same thread
gives a sign of life every few seconds, also while the other waits.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType

from coterie.parallel.ranks import Ranks

_EVERY = 0.02  # seconds between looks
_BEAT = 5.0  # seconds between signs of life
_MESSAGES = (
    "torch/distributed/distributed_c10d.py",
    "torch/distributed/_functional_collectives.py",
    "torch/distributed/fsdp/_fully_shard/_fsdp_collectives.py",
    "torch/distributed/pipelining/schedules.py",
)
_CALLS = "torch/_ops.py"  # between a functional collective and the operator that it calls
LEAST_APART = 0.2
"""How far the shares of waiting lie apart before the process that waits least is a straggler."""


class Waiting:
    """Looks at the thread that makes it, as long as it is entered, unless it is alone.

    Args:
        ranks: the processes.
        tell: called on the first process, from another thread, with a sentence on a silent one.
        beat: seconds between signs of life; four without one are a silence.
    """

    def __init__(self, ranks: Ranks, tell: Callable[[str], None], beat: float = _BEAT) -> None:
        self._ranks, self._tell, self._beat = ranks, tell, beat
        self._watched = threading.get_ident()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, name="coterie-waiting", daemon=True)
        self._waited = self._seen = 0.0

    def __enter__(self) -> Waiting:
        if self._ranks.world > 1:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()

    def take(self) -> float | None:
        """Return the share of the time since the last call that went on waiting; None: no look."""
        waited, seen = self._waited, self._seen
        self._waited = self._seen = 0.0
        return waited / seen if seen else None

    def _look(self) -> None:
        before = due = time.monotonic()
        while not self._end.wait(_EVERY):
            inside = _in_messages(sys._current_frames().get(self._watched))
            now = time.monotonic()
            self._seen += now - before
            self._waited += inside * (now - before)
            before = now
            if now >= due:
                due = now + self._beat
                with contextlib.suppress(RuntimeError):  # the store is gone; the steps will tell
                    self._live()
        with contextlib.suppress(RuntimeError):
            self._ranks.beat(leaving=True)

    def _live(self) -> None:
        self._ranks.beat()
        if self._ranks.is_first:
            for said in self._ranks.silent(4 * self._beat):
                self._tell(said)


def _in_messages(frame: FrameType | None) -> bool:
    """Return whether the innermost function of a thread sends, receives or waits for it."""
    while frame is not None and frame.f_code.co_filename.endswith(_CALLS):
        frame = frame.f_back
    return frame is not None and frame.f_code.co_filename.endswith(_MESSAGES)


def straggler(shares: Sequence[float | None]) -> int | None:
    """Return which process the others wait for, by the share of its time that each waits.

    None: nobody stands out, or it is not known of all.
    """
    known = [share for share in shares if share is not None]
    if len(known) < len(shares) or len(known) < 2:
        return None
    least, second, *_ = sorted(known)
    return shares.index(least) if second - least >= LEAST_APART else None
