"""Compiling is decided by what it gains over the steps that are left, and never fails a run."""

from __future__ import annotations

import os

import pytest
import torch

from coterie.checkpoint.state import ChoicesState
from coterie.foundation.errors import SettingsError
from coterie.foundation.runs import cache_root
from coterie.train import compiling
from coterie.train import session as sessions
from coterie.train.compiling import (
    CompileChoice,
    choose_compile,
    keep_compiled_code,
    require_one_recording,
)
from coterie.train.session import open_session
from coterie.train.settings import TrainSettings
from tests.train.test_choices import sized
from tests.train.test_turns import Clock

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def compiler(monkeypatch):
    """Say that there is a compiler; return what says that there is none."""
    monkeypatch.setattr(compiling, "missing_compiler", lambda device: None)

    def remove():
        for where in (compiling, sessions):
            monkeypatch.setattr(where, "missing_compiler", lambda device: "there is none")

    return remove


def choice(tiny, steps, *, eager=1.0, compiled=(30.5, 0.5)):
    clock = Clock()
    found = choose_compile(
        sized(tiny(train={"steps": steps})), CPU,
        clock.work("eager", eager), clock.work("compiled", *compiled), clock,
    )  # fmt: skip
    return found, clock


def test_a_short_run_is_not_even_tried(tiny):
    found, clock = choice(tiny, 30)
    assert not found.compile
    assert "take 30 s in all" in found.reason
    assert "compiled" not in clock.done


def test_gain_and_cost_are_measured_and_told(tiny):
    found, _ = choice(tiny, 100)
    assert found.compile  # what compiling took is spent already
    assert "500 ms instead of 1,000" in found.reason
    assert "gains 50 s over 100" in found.reason
    assert "compiling took 30 s" in found.reason


def test_a_slower_program_is_not_taken(tiny):
    found, _ = choice(tiny, 100, compiled=(30.0, 1.1))
    assert not found.compile
    assert found.reason.startswith("not compiled: ")


def test_the_next_run_weighs_what_is_known(tiny):
    choice(tiny, 100)
    found, clock = choice(tiny, 14)
    assert not found.compile  # 7 s of gain; a quarter of 30 s is expected
    assert not clock.done
    found, clock = choice(tiny, 100, compiled=(3.5, 0.5))
    assert found.compile
    assert clock.done == ["compiled"]
    found, clock = choice(tiny, 14)  # compiling again was seen to take 3 s
    assert found.compile
    assert not clock.done


def test_without_a_compiler_it_is_told_and_not_failed(tiny, compiler, new_run):
    compiler()
    found, clock = choice(tiny, 10_000)
    assert found == CompileChoice(False, "not compiled: there is none")
    assert not clock.done
    told = []
    session = open_session(tiny(train={"compile": "auto"}), new_run("a"), told.append)
    assert not session.compiled
    assert "The decoder is not compiled: there is none." in told
    with pytest.raises(SettingsError, match="compile=true cannot be done: there is none"):
        open_session(tiny(train={"compile": True}), new_run("b"))


def test_a_failing_compiler_is_told_and_not_failed(tiny):
    def fail():
        raise RuntimeError("C++ compile error\nand so on")

    clock = Clock()
    settings = sized(tiny(train={"steps": 1000}))
    found = choose_compile(settings, CPU, clock.work("eager", 1.0), fail, clock)
    assert found == CompileChoice(False, "not compiled, for that failed: C++ compile error")


@pytest.mark.parametrize("began", [True, False])
def test_a_resumed_run_is_compiled_if_it_was(tiny, new_run, compiler, began):
    kept = ChoicesState(device="cpu", precision="float32", compile=began)
    settings = tiny(train={"compile": "auto"})
    assert open_session(settings, new_run("a"), kept=kept).compiled == began
    compiler()
    told = []
    assert not open_session(settings, new_run("b"), told.append, kept).compiled
    assert any("goes on as it is" in each for each in told) == began


def test_compiled_code_is_kept_in_our_cache_unless_told_otherwise(monkeypatch):
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    keep_compiled_code()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(cache_root() / "compiled")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "elsewhere")
    keep_compiled_code()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "elsewhere"


def test_the_mode_reaches_torch(tiny, new_run, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "compile", lambda decoder, mode: asked.append(mode) or decoder)
    settings = tiny(train={"compile": True, "compile_mode": "max-autotune"})
    assert open_session(settings, new_run("mode")).compiled
    assert asked == ["max-autotune"]


def test_steps_are_recorded_once():
    asked = {"compile": True, "compile_mode": "reduce-overhead"}
    with pytest.raises(SettingsError, match="records CUDA graphs itself"):
        require_one_recording(TrainSettings(**asked), torch.device("cuda"))
    for changed in ({"cuda_graph": False}, {"compile": False}, {"compile_mode": "default"}):
        require_one_recording(TrainSettings(**asked | changed), torch.device("cuda"))
    require_one_recording(TrainSettings(**asked), CPU)
