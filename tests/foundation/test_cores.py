"""Threads make room for other processes, come back, and stay as the user said."""

from __future__ import annotations

import os

import pytest

from coterie.foundation.cores import SharedCores, core_seconds, usable_cores


class Machine:
    """Cores whose use is written here: ours and that of others, each as cores at a time."""

    def __init__(self, cores=2, threads=2):
        self.threads, self.time, self.own, self.worked = threads, 100.0, 5.0, 400.0
        self.asked = 0
        self.shared = SharedCores(
            lambda: self.threads, self.use, clock=lambda: self.time, own=lambda: self.own,
            worked=self.tell, cores=cores,
        )  # fmt: skip
        self.shared.look()

    def use(self, threads):
        self.threads = threads

    def tell(self):
        self.asked += 1
        return self.worked

    def after(self, others, seconds=0.3):
        """Let some time pass beside others and return how many threads there are then."""
        self.time += seconds
        self.own += self.threads * seconds
        self.worked += (self.threads + others) * seconds
        self.shared.look()
        return self.threads


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("COTERIE_THREADS", "adaptive")


def test_a_thread_is_given_up_for_a_busy_neighbour_and_taken_up_again():
    machine = Machine()
    assert [machine.after(each) for each in (0.0, 0.1, 1.0, 1.0, 0.0)] == [2, 2, 1, 1, 2]


def test_a_little_use_neither_takes_nor_gives_a_thread():
    machine = Machine()
    assert [machine.after(each) for each in (0.35, 1.0, 0.35, 0.3, 0.2)] == [2, 1, 1, 1, 2]


def test_there_is_always_one_thread_and_never_more_than_before():
    machine = Machine(cores=8, threads=4)
    assert [machine.after(each) for each in (3.0, 5.0, 8.0, 12.0, 0.0)] == [4, 3, 1, 1, 4]


def test_looks_are_rare():
    machine = Machine()
    for _ in range(20):
        machine.after(1.0, seconds=0.01)
    assert machine.asked == 1


def test_what_somebody_else_set_is_the_new_most():
    machine = Machine(cores=4, threads=4)
    assert machine.after(1.0) == 3
    machine.threads = 2
    assert [machine.after(each) for each in (0.0, 3.0, 0.0)] == [2, 1, 2]


@pytest.mark.parametrize("said", [("OMP_NUM_THREADS", "2"), ("COTERIE_THREADS", "")])
def test_what_the_user_said_stays(said, monkeypatch):
    monkeypatch.setenv(*said)
    machine = Machine()
    assert machine.after(1.0) == 2
    assert machine.asked == 0


def test_held_threads_come_back_and_stay():
    machine = Machine()
    assert machine.after(1.0) == 1
    machine.shared.hold()
    assert machine.threads == machine.after(1.0) == 2


def test_where_the_system_does_not_tell_nothing_changes():
    machine = Machine()
    machine.tell = lambda: None
    machine.shared._worked = machine.tell
    assert machine.after(1.0) == machine.after(1.0) == 2


@pytest.mark.skipif(not os.path.exists("/proc/stat"), reason="the system does not tell")
def test_the_seconds_of_the_cores_are_those_of_the_system():
    cores = usable_cores()
    total = core_seconds(cores)
    assert total >= core_seconds(list(cores)[:1]) > 0
    assert core_seconds([10**6]) is None
