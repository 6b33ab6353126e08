"""Functions of one's own: what goes wrong in them is told with the sample."""

import math
import sys
import time
import types
from concurrent.futures import ThreadPoolExecutor

import pytest

from coterie.align.rewards import Corpus, RewardError, Sample
from coterie.align.rewards.function import Function
from coterie.align.rewards.pattern import Pattern
from coterie.foundation.errors import UserError

SAMPLES = [Sample("Once", f" upon {number}") for number in range(3)]


@pytest.fixture
def reward(monkeypatch):
    def make(function, **settings):
        module = types.ModuleType("my_rewards")
        module.mine = function
        monkeypatch.setitem(sys.modules, "my_rewards", module)
        return Function(function="my_rewards:mine", **settings).build(Corpus())

    return make


def test_it_is_called_with_all_prompts_and_texts(reward):
    def mine(prompts, completions):
        assert prompts == ["Once"] * 3
        return [float(text[-1]) for text in completions]

    assert reward(mine)(SAMPLES) == [0.0, 1.0, 2.0]


def fails_on_one(prompts, completions):
    if " upon 1" in completions:
        raise KeyError("no such word")
    return [0.0] * len(completions)


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (fails_on_one, r"raised KeyError: 'no such word' on “Once →  upon 1”"),
        (lambda prompts, completions: [0.0, math.nan, 1.0], r"nan for “Once →  upon 1”"),
        (lambda prompts, completions: [0.0, "good", 1.0], r"good for “Once →  upon 1”"),
        (lambda prompts, completions: [0.0], r"1 numbers for 3 texts, .* “Once →  upon 0”"),
        (lambda prompts, completions: None, r"returned None for 3 texts"),
        (lambda prompts, completions: sys.exit(3), r"raised SystemExit: 3 on “Once →  upon 0”"),
    ],
)
def test_what_goes_wrong_names_the_sample_and_the_way_on(reward, function, told):
    with pytest.raises(RewardError, match=told) as caught:
        reward(function)(SAMPLES)
    assert "--resume" in caught.value.hint


@pytest.mark.parametrize("in_thread", [False, True])
def test_one_that_hangs_is_stopped_and_says_on_what(reward, in_thread):
    def sleeps(prompts, completions):
        time.sleep(5)

    hanging = reward(sleeps, seconds=0.1)
    began = time.perf_counter()
    with pytest.raises(RewardError, match=r"longer than 0.1 s on “Once →  upon 0”"):
        if in_thread:
            pool = ThreadPoolExecutor(1)
            pool.submit(hanging, SAMPLES).result()
        else:
            hanging(SAMPLES)
    assert time.perf_counter() - began < 2


def test_a_regular_expression_that_never_ends_is_stopped():
    hanging = Pattern(regex=r"(a+)+$", seconds=0.2).build(Corpus())
    with pytest.raises(RewardError, match=r"regular expression .* longer than 0.2 s on “ → aaa"):
        hanging([Sample("", "a" * 40 + "b")])


def test_one_that_cannot_be_imported_says_where_it_is_looked_for():
    with pytest.raises(UserError, match="no_such_module:f cannot be imported"):
        Function(function="no_such_module:f").build(Corpus())
    with pytest.raises(ValueError, match="module:name"):
        Function(function="no_such_module")
