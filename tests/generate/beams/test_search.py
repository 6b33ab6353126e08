"""Beam search against every text there is, against transformers' rules, and with constraints."""

import itertools

import pytest
import torch

from coterie.foundation.errors import SettingsError, UserError
from coterie.foundation.layers import load_settings, overrides_layer
from coterie.generate.beams import BeamSettings
from coterie.generate.beams.search import search
from coterie.generate.sampling import Sampler, SamplingSettings

END = 0


class Toy:
    """A session over a model that knows the last two tokens; rows as the search selects them."""

    def __init__(self, vocab_size: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        shape = (vocab_size + 1, vocab_size + 1, vocab_size)
        self.logits = torch.randn(shape, generator=generator, dtype=torch.float64) * 2
        self.rows: list[list[int]] = []
        self.selected: list[list[int]] = []

    def read(self, tokens):
        self.rows = [[*old, *new] for old, new in zip(self.rows or [[]], tokens.tolist())]  # noqa: B905
        return torch.stack([self.next(row) for row in self.rows])

    def select(self, rows):
        self.selected.append(rows)
        self.rows = [list(self.rows[row]) for row in rows]

    def next(self, row):
        before = [-1, -1, *row][-2:]
        return self.logits[before[0], before[1]]


def run(toy, beams, sampling=None, constraints=(), **values):
    sampler = Sampler(SamplingSettings.model_validate(values), constraints=constraints, ends=[END])
    settings = BeamSettings.model_validate(beams)
    found = search(toy, [1], settings, sampler, frozenset([END]), toy.logits.shape[-1])
    return [(each.tokens, each.score) for each in found], found


def every_text(toy, most, power):
    """Return every text that the end token or the length ends, the best first."""
    texts = []
    size = toy.logits.shape[-1]
    for length in range(1, most + 1):
        for tokens in itertools.product(range(size), repeat=length):
            inner = tokens[:-1]
            if END in inner or (length < most and tokens[-1] != END):
                continue
            score, row = 0.0, [1]
            for token in tokens:
                score += float(toy.next(row).log_softmax(-1)[token])
                row.append(token)
            texts.append((tokens, score / length**power))
    return sorted(texts, key=lambda each: -each[1])


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
@pytest.mark.parametrize(("size", "most"), [(3, 4), (4, 3)])
def test_a_wide_beam_finds_the_best_of_all_texts(size, most, power):
    toy = Toy(size, seed=size)
    beams = {"width": size**most, "length_penalty": power, "early_stopping": "never"}
    found, _ = run(toy, beams, max_tokens=most)
    best = every_text(toy, most, power)
    assert [tokens for tokens, _ in found] == [tokens for tokens, _ in best]
    assert [score for _, score in found] == pytest.approx([score for _, score in best])


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("size", "most"), [(5, 5), (3, 6), (4, 6)])
def test_a_wide_beam_finds_the_best_of_all_longer_texts(size, most, seed):
    toy = Toy(size, seed)
    beams = {"width": 1024, "early_stopping": "never", "length_penalty": 1.0}
    found, _ = run(toy, beams, max_tokens=most)
    assert found[0][0] == every_text(toy, most, 1.0)[0][0]


def test_a_width_of_one_is_greedy():
    toy = Toy(5, seed=4)
    found, _ = run(toy, {"width": 1}, max_tokens=6)
    row = [1]
    while len(row) < 7 and row[-1] != END:
        row.append(int(toy.next(row).argmax()))
    assert [tokens for tokens, _ in found] == [tuple(row[1:])]


def test_logprobs_are_of_each_token_and_ends_are_told():
    toy = Toy(4, seed=2)
    _, found = run(toy, {"width": 6, "length_penalty": 0.0}, max_tokens=4)
    assert {each.ended for each in found} == {True, False}
    for each in found:
        assert each.ended == (each.tokens[-1] == END)
        assert sum(each.logprobs) == pytest.approx(each.score)


def test_lengths_and_penalties_hold_for_every_beam():
    toy = Toy(4, seed=2)
    _, found = run(toy, {"width": 4}, max_tokens=5, min_tokens=3)
    assert all(len(each.tokens) >= 4 or not each.ended for each in found)
    _, found = run(Toy(4, seed=2), {"width": 3}, max_tokens=5, presence_penalty=50.0)
    assert all(len(set(each.tokens)) >= min(len(each.tokens), 4) for each in found)


class Rising:
    """Allows only tokens above the last one; the end is always allowed."""

    def __init__(self) -> None:
        self.tokens = [0]

    def mask(self, logits):
        masked = logits.clone()
        masked[1 : self.tokens[-1] + 1] = -torch.inf
        return masked

    def accept(self, token):
        self.tokens.append(token)

    def rollback(self, count):
        del self.tokens[len(self.tokens) - count :]


def test_constraints_follow_each_beam():
    toy = Toy(5, seed=1)
    _, found = run(
        toy, {"width": 8, "early_stopping": "never"}, constraints=[Rising()], max_tokens=5
    )
    assert len(found) == 8
    for each in found:
        body = [token for token in each.tokens if token != END]
        assert body == sorted(set(body))


class Nothing(Rising):
    def mask(self, logits):
        return torch.full_like(logits, -torch.inf)


def test_constraints_that_leave_no_text_are_told():
    with pytest.raises(UserError, match="leave no text"):
        run(Toy(3), {"width": 2}, constraints=[Nothing()], max_tokens=4)


def test_groups_avoid_each_others_tokens():
    toy = Toy(5, seed=6)
    same = {"width": 2, "groups": 2, "diversity_penalty": 0.0}
    alike, _ = run(Toy(5, seed=6), same, max_tokens=4)
    assert alike[0] == alike[1]
    _, apart = run(toy, {"width": 2, "groups": 2, "diversity_penalty": 50.0}, max_tokens=4)
    assert all(
        a != b for a, b in zip(apart[0].tokens, apart[1].tokens, strict=False) if END not in (a, b)
    )
    for each in apart:  # the scores are the model's own
        row, score = [1], 0.0
        for token in each.tokens:
            score += float(toy.next(row).log_softmax(-1)[token])
            row.append(token)
        assert score / len(each.tokens) == pytest.approx(each.score)


def test_early_stopping_ends_sooner():
    steps = {True: [], False: [], "never": []}
    for seed in range(4):
        for rule, each in steps.items():
            toy = Toy(4, seed)
            run(toy, {"width": 2, "early_stopping": rule}, max_tokens=20)
            each.append(len(toy.selected))
    assert sum(steps[True]) < sum(steps[False]) < sum(steps["never"])
    assert all(a <= b <= c for a, b, c in zip(*steps.values(), strict=True))


@pytest.mark.parametrize("words", [["beams.width=3", "beams.groups=2"], ["beams.width=0"]])
def test_impossible_settings_are_refused(words):
    with pytest.raises(SettingsError, match="beams"):
        load_settings(SamplingSettings, [overrides_layer(words)])
