"""Every reward on good and bad texts, and within the range that it promises."""

import math

import pytest
from pydantic import TypeAdapter

from coterie.align.rewards import Corpus, Reward, RewardError, Sample
from coterie.foundation.settings import members

VERSE = """Shall I compare thee to a summer's day?
Thou art more lovely and more temperate:
Rough winds do shake the darling buds of May,
And summer's lease hath all too short a date:
Sometime too hot the eye of heaven shines,
And often is his gold complexion dimm'd;
And every fair from fair sometime declines,
By chance or nature's changing course untrimm'd;
"""
PROSE = "The committee published its preliminary recommendations on Tuesday afternoon"
PROMPT = "When I do count the clock that tells the time,\n"

# kind and settings; texts from the best to the worst, each with a prompt of its own where given.
CASES = {
    "metre": ({}, [VERSE, "Yesterday's unemployment figures", PROSE, ""]),
    "metre graded": (
        {"kind": "metre"},
        ["And see the brave day sunk in hideous night", "And see the day sunk in night", "No"],
    ),
    "metre binary": ({"kind": "metre", "graded": False}, [VERSE, PROSE]),
    "metre of a line begun": (
        {"kind": "metre"},
        [("Shall I compare thee", " to a summer's day?"), ("", " to a summer's day?")],
    ),
    "rhyme": (
        {"after": 1},
        [(PROMPT, "And summer's lease is only half a rhyme"), (PROMPT, "I love the sea"),
         (PROMPT, "The time, the time")],
    ),
    "rhyme of a form": ({"kind": "rhyme", "form": "ABAB"}, [VERSE, "one\ntwo\nthree\n", ""]),
    "structure": ({"lines": 2}, ["one\ntwo\n", "one\n", "one\ntwo\nthree\nfour\n"]),
    "structure of drama": (
        {"kind": "structure", "tags": True},
        ["<PLAY>Hamlet</PLAY>\n<ACT>I</ACT>\n", "<PLAY>Hamlet</PLAY>\n<ACT>I</SCENE>\n"],
    ),
    "repetition": ({}, ["one two three four", "one two one two one two"]),
    "repetition of the prompt": (
        {"kind": "repetition"}, [(PROMPT, "none of it"), (PROMPT, "count the clock")],
    ),
    "copying": ({}, ["a bee in amber", "thou art more lovely and more temperate"]),
    "syntax": ({}, ["x = 1\ny = 2\n", "x = 1\ny = 2\nz = (\n", "x = = 1\ny = 2\n", ""]),
    "syntax of json": ({"kind": "syntax", "language": "json"}, ['{"a": [1]}', '{"a": [1,', "a"]),
    "pattern": ({"regex": r"\d+"}, ["in 1609", "in the year"]),
    "pattern, whole": ({"kind": "pattern", "regex": r"\d+", "whole": True}, ["1609", "in 1609"]),
}  # fmt: skip


def built(kind, **settings):
    found = TypeAdapter(Reward).validate_python({"kind": kind, **settings})
    return found, found.build(Corpus(lambda: VERSE * 20))


@pytest.mark.parametrize("name", CASES)
def test_a_better_text_gets_more_and_all_lie_within_the_range(name):
    settings, texts = CASES[name]
    reward, judge = built(**{"kind": name, **settings})
    samples = [Sample(*each) if isinstance(each, tuple) else Sample("", each) for each in texts]
    values = judge(samples)
    assert values == sorted(values, reverse=True)
    assert values[0] > values[-1] + 0.05
    assert all(reward.low <= value <= reward.high for value in values)
    assert judge(samples) == values  # nothing is kept


def test_every_kind_says_its_unit_and_range_and_is_tried_here():
    tried = {settings.get("kind", name) for name, (settings, _) in CASES.items()}
    tried |= {"archaic", "long_words", "fluency", "length", "function"}
    tried |= {"model"}  # of which tests/align/test_reward_model.py makes one
    assert {each.model_fields["kind"].default for each in members(Reward)} == tried
    assert all(each.unit and each.low < each.high for each in members(Reward))


def test_the_metre_of_a_verse_is_no_better_for_being_more_regular_than_people_write():
    _, judge = built("metre", easy=4.7)
    assert judge([Sample("", VERSE)])[0] > 0.95


def test_more_archaic_words_than_people_use_cost_as_fewer_do():
    _, judge = built("archaic")
    lines = VERSE.splitlines()
    like = [Sample("", line) for line in lines * 4]
    none = [Sample("", "the day is long and I am here again")] * 16
    much = [Sample("", "thou hast thy thee and thine and thou art thou")] * 16
    assert abs(sum(judge(like)) / len(like)) < 0.1
    assert max(judge(none)) < -0.3
    assert max(judge(much)) < -1
    half = judge([*none, *like, *like, *like])
    assert half[0] < half[16 + 1]  # of the second line: "thou art"


def test_monosyllables_alone_cost():
    _, judge = built("long_words")
    lines = [Sample("", line) for line in VERSE.splitlines()]
    short = [Sample("", "the day is long and I am here with you")] * 24
    values = judge([*lines, *short])
    assert values[-1] < 0 < max(values[: len(lines)])


def test_fluency_is_what_the_reference_says_and_asks_for_one():
    reward, judge = built("fluency")
    assert judge([Sample("", "a", reference=-1.5), Sample("", "b", reference=-99.0)]) == [-1.5, -10]
    assert reward.low == -10
    with pytest.raises(RewardError, match="frozen reference"):
        judge([Sample("", "a")])


def test_lengths_beyond_the_bounds_and_texts_without_an_end_cost():
    _, judge = built("length", least=10, most=20)
    fits, short, long, cut = (
        Sample("", "a", tokens=15), Sample("", "a", tokens=5), Sample("", "a", tokens=25),
        Sample("", "a", tokens=15, ended=False),
    )  # fmt: skip
    assert judge([fits, short, long, cut]) == [0.0, -0.5, -0.25, -1.0]


def test_words_of_texts_are_counted_as_copied_where_the_run_is_long_enough():
    _, judge = built("copying", run=4)
    assert judge([Sample("", "my art more lovely and more tame")])[0] == pytest.approx(-5 / 7)
    assert math.copysign(1, judge([Sample("", "")])[0]) in (1, -1)
