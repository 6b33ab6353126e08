"""Figures of held-out texts, and the alarms that a won reward and a lost text raise."""

from coterie.align.reinforce.prompts import drawn, prompts_of_text, read_prompts, spread
from coterie.align.reinforce.watch import alarms, figures_of
from coterie.align.rewards import Corpus, Sample

VERSE = """Shall I compare thee to a summer's day?
Thou art more lovely and more temperate:
Rough winds do shake the darling buds of May,
And summer's lease hath all too short a date:

Sometime too hot the eye of heaven shines,
"""


def samples(lines):
    return [Sample("", line, reference=-1.5, tokens=9) for line in lines]


def test_a_text_of_archaic_words_alone_raises_the_alarm_and_says_what_to_do():
    human = figures_of(samples(VERSE.splitlines()), Corpus(), None)
    hacked = samples(["thou hast thy thee and thine and thou art thou"] * 8)
    found = {each.figure: each for each in alarms(3, figures_of(hacked, Corpus(), None), human, {})}
    assert {"archaic", "monosyllables", "distinct_2"} <= found.keys()
    assert "reward archaic" in found["archaic"].message
    assert found["archaic"].value > found["archaic"].bound
    assert not alarms(3, human, human, human)


def test_copied_lines_and_unlikely_ones_raise_it_too():
    own = figures_of(samples(["a bee in amber of its own"]), Corpus(lambda: VERSE), None)
    copied = samples(["thou art more lovely and more temperate"])
    copied = [Sample("", each.text, False, 9, -2.5) for each in copied]
    found = {each.figure for each in alarms(1, figures_of(copied, Corpus(lambda: VERSE), None),
                                            own, {})}  # fmt: skip
    assert {"copied", "reference_nats", "ended"} <= found


def test_prompts_are_lines_that_the_text_goes_on_after():
    found = prompts_of_text(VERSE, 2, 200)
    assert found == [
        "Shall I compare thee to a summer's day?\nThou art more lovely and more temperate:\n",
        "Thou art more lovely and more temperate:\nRough winds do shake the darling buds of May,\n",
    ]
    assert prompts_of_text(VERSE, 2, 20) == []
    assert spread(list("abcdefg"), 3) == ["a", "d", "g"]


def test_a_rollouts_prompts_follow_from_seed_and_number():
    known = [f"{number}\n" for number in range(50)]
    assert drawn(known, 8, 1, 2) == drawn(known, 8, 1, 2)
    assert drawn(known, 8, 1, 2) != drawn(known, 8, 1, 3)
    assert len(set(drawn(known, 50, 0, 0))) == 50
    assert len(drawn(known[:3], 8, 0, 0)) == 8


def test_files_of_prompts(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "Once"}\n\n{"prompt": "Twice\\n"}\n')
    (tmp_path / "a.txt").write_text("Once\n")
    assert read_prompts(tmp_path / "a.jsonl") == ["Once", "Twice\n"]
    assert read_prompts(tmp_path / "a.txt") == ["Once\n"]
