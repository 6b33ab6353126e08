"""Pairs made by a reward: the best before the worst, nothing where all texts got the same."""

import pytest

from coterie.align.methods import aligned_settings, method_of
from coterie.align.reinforce.pairs import preference_pairs
from coterie.foundation.errors import DataError

SMALL = {
    "prompts_per_rollout": 2, "texts_per_prompt": 4, "prompt_lines": 1,
    "rollout": {"temperature": 1.0, "max_tokens": 8, "compute": "torch"},
}  # fmt: skip


def pairs_of(base, regex, count=3, seed=1):
    said = {"kind": "rejection", "rewards": [{"kind": "pattern", "regex": regex}], **SMALL}
    settings = aligned_settings(base, said, {"steps": 1}, [])
    method = method_of(settings, None)
    _, data = method.prepare(settings, lambda sentence: None)
    return list(preference_pairs(method, data, count, seed)), data


def test_the_best_text_stands_before_the_worst_and_the_seed_decides_both(base):
    found, data = pairs_of(base, "e")
    assert found, "a tenth of the letters or so are e"
    for row in found:
        assert "e" in row["chosen"]
        assert "e" not in row["rejected"]
        assert (row["chosen_reward"], row["rejected_reward"]) == (1.0, 0.0)
        assert row["prompt"] in data.train
    assert pairs_of(base, "e")[0] == found
    assert pairs_of(base, "e", seed=2)[0] != found


def test_there_is_no_pair_where_all_texts_got_the_same(base):
    assert pairs_of(base, "^")[0] == []


def test_more_pairs_than_prompts_are_refused(base):
    with pytest.raises(DataError, match="and 99 pairs are wanted"):
        pairs_of(base, "e", count=99)
