"""How many threads to compute with on cores that other processes use as well.

Threads that compute together wait for each other at the end of each small piece of work. When
another process takes one core, each such wait lasts until the thread there has its turn again:
beside one busy process on two cores, two threads reach a quarter of their quiet rate and one
thread three quarters (`benchmarks/neighbour.py`). So whoever asks for it gets only as many threads
as cores are free, and all of them again as soon as the others are done. Nobody gets it unasked:
the last bits of sums may depend on the number of threads, and a run must repeat to the bit.

What others use is what the cores worked (/proc/stat) less what this process did. Where the system
does not tell, or the user said how many threads there shall be, nothing is changed either.
"""

import contextlib
import os
import time
from collections.abc import Callable, Collection
from pathlib import Path

INTERVAL = 0.25  # seconds between two looks; the system counts in hundredths
TOLERANCE = 0.4  # cores that others may use before a thread is given up for them
MARGIN = 0.15  # less than that by which they must fall before it is taken up again
CHOICE, ADAPTIVE = "COTERIE_THREADS", "adaptive"


class SharedCores:
    """Gives up threads while other processes use the cores.

    Attributes:
        others: how many cores they used between the latest two looks; None: not known yet.
    """

    def __init__(
        self,
        threads: Callable[[], int],
        use: Callable[[int], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        own: Callable[[], float] = time.process_time,
        worked: Callable[[], float | None] | None = None,
        cores: int | None = None,
    ) -> None:
        """Prepare; nothing is looked at yet.

        Args:
            own: seconds that this process has computed, over all its threads.
            worked: seconds that the cores have worked for anybody; None: it cannot be known.
        """
        usable = usable_cores()
        self._threads, self._use, self._clock, self._own = threads, use, clock, own
        self._worked = (lambda: core_seconds(usable)) if worked is None else worked
        self._cores = len(usable) if cores is None else cores
        self._most = self._set = threads()
        self._fixed = not adaptive()
        self._last: tuple[float, float, float] | None = None
        self.others: float | None = None

    def look(self) -> None:
        """Adapt the number of threads, if the latest look is long enough ago."""
        now = self._clock()
        if self._fixed or (self._last is not None and now - self._last[0] < INTERVAL):
            return
        if (current := self._threads()) != self._set:  # somebody else set it, and knows why
            self._most = self._set = current
        worked = self._worked() if self._most > 1 else None
        if worked is None:
            self._last = (now, 0.0, 0.0)
            self.others = None
            return
        before, self._last = self._last, (now, worked, self._own())
        if before is None or not before[1]:
            return
        passed, together, own = (b - a for a, b in zip(before, self._last, strict=True))
        self.others = max(together - own, 0.0) / passed
        wanted = self._wanted(self.others)
        if wanted != self._set:
            self._use(wanted)
            self._set = wanted

    def hold(self) -> None:
        """Have all threads from now on, whatever others do."""
        if self._set != self._most:
            self._use(self._most)
            self._set = self._most
        self._fixed = True

    def _wanted(self, others: float) -> int:
        """Return how many threads there shall be beside what others use."""
        fewer = max(min(int(self._cores - others + TOLERANCE), self._most), 1)
        more = max(min(int(self._cores - others + TOLERANCE - MARGIN), self._most), 1)
        return fewer if fewer < self._set else max(more, self._set)


def adaptive() -> bool:
    """Return whether the user asked for fewer threads beside others, and did not say how many."""
    return os.environ.get(CHOICE) == ADAPTIVE and not os.environ.get("OMP_NUM_THREADS")


def usable_cores() -> Collection[int]:
    """Return the numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return range(os.cpu_count() or 1)


def core_seconds(cores: Collection[int]) -> float | None:
    """Return the seconds that some cores have worked since the machine started; None: not told."""
    wanted, ticks = {f"cpu{number}" for number in cores}, 0
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/stat").read_text(encoding="ascii").splitlines():
            name, *fields = line.split()
            if name in wanted:
                user, nice, system, _, _, interrupts, soft = map(int, fields[:7])
                ticks += user + nice + system + interrupts + soft
        return ticks / os.sysconf("SC_CLK_TCK") if ticks else None
    return None
