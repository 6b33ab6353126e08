"""A time limit for code of somebody else's, such as a reward function or a regular expression."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

from coterie.align.rewards.interface import RewardError, Sample

T = TypeVar("T")


class _TooLongError(BaseException):
    """Not an `Exception`, so that the code which is stopped does not catch it by chance."""


def limited(seconds: float, call: Callable[[], T], what: str, sample: Sample) -> T:
    """Return what a call returns, unless it takes longer.

    In the main thread it is stopped by a signal. In another it goes on in a thread that is left
    behind.

    Args:
        what: is called, for the error.
        sample: what it judges, for the error.

    Raises:
        RewardError: the time is over.
    """
    timeout = RewardError(
        f"{what} took longer than {seconds:g} s on “{sample.shown()}”.",
        hint="Make it faster or raise its `seconds`; the run can be resumed.",
    )
    if threading.current_thread() is not threading.main_thread():
        return _in_thread(seconds, call, timeout)

    def stop(number: int, frame: FrameType | None) -> None:
        raise _TooLongError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return call()
    except _TooLongError:
        raise timeout from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _in_thread(seconds: float, call: Callable[[], T], timeout: RewardError) -> T:
    found: list[T] = []
    raised: list[BaseException] = []

    def work() -> None:
        try:
            found.append(call())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if raised:
        raise raised[0]
    if not found:
        raise timeout
    return found[0]
