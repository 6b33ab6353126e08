"""A bound on how long a block may take."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


class _RungError(BaseException):
    """Passes whatever catches an `Exception` on its way, compilers above all."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Break off what the block does when it has taken so many seconds.

    A call into compiled code is broken off when it returns. Outside the main thread, and where the
    system has no such timer (Windows), there is no limit.

    Raises:
        TimeoutError: it was broken off.
    """
    here = threading.current_thread() is threading.main_thread()
    if not here or not hasattr(signal, "setitimer"):
        yield
        return

    def ring(*_: Any) -> None:
        raise _RungError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
    except _RungError:
        raise TimeoutError(f"it was not done after {seconds:,.0f} s") from None
    finally:
        signal.signal(signal.SIGALRM, before)
