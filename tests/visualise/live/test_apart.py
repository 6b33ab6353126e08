"""A text in another process is the text that it would be here, and its end is told of."""

import os
import signal
import time

import numpy as np
import pytest
import torch

from coterie.foundation.errors import CoterieError, UserError
from coterie.foundation.traces import read_trace
from coterie.visualise.live.apart import TextApart
from coterie.visualise.live.source import LiveText
from coterie.visualise.live.writing import WritingApp
from tests.visualise.live.conftest import Planted


def make(prompt="To be, or not"):
    torch.set_num_threads(1)
    model = Planted()
    return LiveText(model.text(prompt), write=model.write)


def wait(live, ready):
    until = time.monotonic() + 60
    while not ready(live.trace):
        assert time.monotonic() < until
        time.sleep(0.01)


def same(found, expected):
    assert found.records.tobytes() == expected.records.tobytes()
    assert (found.texts, found.words) == (expected.texts, expected.words)
    assert (found.header, found.ending) == (expected.header, expected.ending)


def test_it_is_the_text_that_it_is_here_with_and_without_a_hand(tmp_path):
    here, apart = make(), TextApart(make)
    try:
        for live in (here, apart):
            wait(live, lambda trace, live=live: not live.writing)
        same(apart.trace, here.trace)
        assert apart.memory > 1e6
        assert apart.can_write
        apart.pause()
        assert apart.paused
        apart.record(tmp_path / "a.trace")
        for live in (here, apart):
            live.go_on(15, {1: (2,)}, {})
            assert len(live.trace.texts) < 37
            wait(live, lambda trace, live=live: not live.writing)
        same(apart.trace, here.trace)
        assert apart.trace.header.masked == ("1:2",)
        with pytest.raises(UserError, match=r"There is a .*a\.trace already"):
            apart.record(tmp_path / "a.trace")
        with pytest.raises(UserError, match="experts 0 to 3"):
            apart.go_on(15, {1: (9,)}, {})
        same(apart.trace, here.trace)
        with pytest.raises(UserError, match="read yet"):
            apart.go_on(37, {}, {})
        apart.go_on(14, {}, {})
        apart.pause()
        count = len(apart.trace.texts)
        apart.step()
        wait(apart, lambda trace: len(trace.texts) > count or trace.ending)
        apart.go()
        wait(apart, lambda trace: trace.ending == "length")
    finally:
        here.close()
        apart.close()
    assert len(read_trace(tmp_path / "a.trace").texts) == 37
    assert not apart._process.is_alive()


def test_what_is_wrong_there_is_said_here(tmp_path, capfd):
    with pytest.raises(UserError, match="is no trace") as caught:
        TextApart(read_trace, __file__)
    assert "--record" in caught.value.hint
    with pytest.raises(CoterieError, match=r"ended \(exit status 1\)"):
        TextApart(int, "a bug")
    assert "a bug" in capfd.readouterr().err


def test_a_killed_model_leaves_the_view_with_what_came(on_screen, seen, drawn):
    apart = TextApart(make, "To be, or not to be")

    async def play(pilot):
        await pilot.pause(0.2)
        os.kill(apart._process.pid, signal.SIGKILL)
        apart._process.join()
        apart.trace  # noqa: B018 - which finds it out
        await pilot.press("m")
        await drawn(pilot)
        return seen(pilot.app)

    lines = on_screen(WritingApp(apart), (160, 50), play)
    assert "The process with the model ended (exit status -9)." in lines[0]
    assert "To be" in "".join(lines)
    assert len(np.unique(apart.trace.records["position"])) == len(apart.trace.texts) >= 19
