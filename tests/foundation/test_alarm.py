"""Blocks that are broken off."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from coterie.foundation.alarm import time_limit


def test_what_is_done_in_time_goes_on():
    before = signal.getsignal(signal.SIGALRM)
    with time_limit(0.05):
        pass
    time.sleep(0.1)  # nothing rings any more
    assert signal.getsignal(signal.SIGALRM) is before


def test_a_block_that_takes_longer_is_broken_off_whatever_it_catches():
    ended = []
    with pytest.raises(TimeoutError, match="after 0 s"), time_limit(0.05):
        try:
            while True:
                time.sleep(0.001)
        except Exception:
            ended.append("swallowed")
        finally:
            ended.append("cleaned up")
    assert ended == ["cleaned up"]


def test_errors_of_the_block_pass():
    with pytest.raises(KeyError), time_limit(10.0):
        raise KeyError


def test_in_another_thread_there_is_no_limit():
    done = []

    def work():
        with time_limit(0.01):
            time.sleep(0.03)
            done.append(1)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done
