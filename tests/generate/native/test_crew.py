"""Threads of the native program: two engines, forks, interruptions, the end of the process."""

import os
import subprocess
import sys
import textwrap
import threading

import pytest
import torch

from coterie.generate.cache.stack import Placement
from coterie.generate.native.program import Program
from coterie.model import DecoderSettings


def build():
    values = {"layers": 2, "width": 32, "context": 32, "vocab_size": 50}
    return DecoderSettings.model_validate(values).build(torch.Generator().manual_seed(0)).eval()


def room():
    return [Placement(torch.zeros(1, 4, 64, 8), torch.zeros(1, 4, 64, 8)) for _ in range(2)]


def text(program, tokens=30):
    caches = room()
    return [program.step([at], [0], [at], caches)[0].clone() for at in range(tokens)]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_two_programs_in_two_threads_do_not_disturb_each_other():
    decoder = build()
    alone, found = text(Program(decoder, threads=1)), {}
    programs = [Program(decoder, threads=2) for _ in range(2)]

    def run(number):
        found[number] = [text(programs[number]) for _ in range(5)]

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert all(same(alone, each) for texts in found.values() for each in texts)
    assert sorted(found) == [0, 1]


def test_helpers_that_have_gone_to_sleep_are_woken():
    program = Program(build(), threads=3)
    first = text(program)
    control = program._crew._control
    for _ in range(200):
        if control[16 + 8] and control[16 + 16]:  # both are parked
            break
        threading.Event().wait(0.05)
    assert same(first, text(program))


def test_an_interruption_between_announcing_and_walking_is_made_up_for(monkeypatch):
    from coterie.generate.native import crew

    program = Program(build(), threads=2)
    first = text(program)
    walk = crew.take_steps

    def interrupted(*given):
        monkeypatch.setattr(crew, "take_steps", walk)
        raise KeyboardInterrupt

    monkeypatch.setattr(crew, "take_steps", interrupted)
    with pytest.raises(KeyboardInterrupt):
        program.step([0], [0], [0], room())
    assert same(first, text(program))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_has_helpers_of_its_own_and_ends():
    program = Program(build(), threads=2)
    first = text(program)
    child = os.fork()
    if child == 0:
        os._exit(0 if same(first, text(program)) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert same(first, text(program))


@pytest.mark.exhaustive
@pytest.mark.parametrize("wait", [0, 1], ids=["spin", "sleep"])
def test_a_process_ends_while_helpers(wait):
    code = f"""
        import threading, torch
        from coterie.generate.cache.stack import Placement
        from coterie.generate.native.program import Program
        from coterie.model import DecoderSettings
        values = {{"layers": 2, "width": 32, "context": 32, "vocab_size": 50}}
        program = Program(DecoderSettings.model_validate(values).build(), threads=3)
        full = Placement(torch.zeros(1, 4, 8, 8), torch.zeros(1, 4, 8, 8))
        program.step([1], [0], [0], [full] * 2)
        threading.Event().wait({wait})
    """
    text(Program(build()), 1)  # compiles the kernels, if need be; the process below finds them
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], timeout=300, check=False)
    assert done.returncode == 0
