"""The choice of a token: what the settings do together, its log-probabilities, and refusals."""

import math

import numpy as np
import pytest
import torch

from coterie.foundation.errors import CoterieError, SettingsError, UserError
from coterie.generate.sampling import Sampler, SamplingSettings
from coterie.tokenizer.settings import Characters

INF = float("inf")
MODEL = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()


def settings(**values) -> SamplingSettings:
    return SamplingSettings.model_validate({"temperature": 1.0, "seed": 1} | values)


def choose(logits=MODEL, past=(), *, sampler=None, **values):
    return (sampler or Sampler(settings(**values))).choose(logits, list(past))


def drawn(probabilities=(0.4, 0.3, 0.2, 0.1), number: int = 60, **values) -> set[int]:
    sampler = Sampler(settings(**values))
    logits = torch.tensor(probabilities).log()
    return {sampler.choose(logits, []).token for _ in range(number)}


def test_penalty_looks_only_at_its_window():
    values = {"temperature": 0, "repetition_penalty": 10.0, "repetition_window": 2}
    logits = torch.tensor([1.0, 0.9, 0.8])
    assert choose(logits, [0, 1, 1], **values).token == 0
    assert choose(logits, [1, 0, 1], **values).token == 2


def test_temperature_zero_takes_the_likeliest_of_equals_the_first():
    for seed in range(5):
        sampler = Sampler(settings(temperature=0, seed=seed))
        assert choose(torch.tensor([0.0, 5.0, 4.9999, 5.0]), sampler=sampler).token == 1


def test_the_nucleus_is_of_what_top_k_left():
    # Of .4 and .3, made .57 and .43, the first alone holds half; of all four it would not.
    assert drawn(top_k=2, top_p=0.5) == {0}
    assert drawn(top_p=0.5) == {0, 1}
    assert drawn(top_k=3) == {0, 1, 2}


def test_the_nucleus_is_of_penalised_and_tempered_logits():
    assert drawn(temperature=0.25, top_p=0.7) == {0}  # .4⁴ is .72 of the fourths
    assert choose(past=[0], top_k=1, repetition_penalty=2.0).token == 1


def test_min_p_and_typical_take_part():
    assert drawn(min_p=0.6) == {0, 1}
    assert drawn((0.5, 0.1, 0.3, 0.1), typical_p=0.29) == {2}


def test_the_order_can_be_chosen():
    logits = (math.exp(3), math.exp(2), math.exp(1))
    rest = ["penalties", "top_k", "min_p", "typical_p"]
    assert drawn(logits, temperature=0.5, top_p=0.8) == {0}
    last = {"order": [*rest, "top_p", "temperature"]}
    assert drawn(logits, temperature=0.5, top_p=0.8, **last) == {0, 1}
    # After top_k has left one, penalties find nobody to prefer to it.
    late = {"order": ["top_k", "penalties", "temperature", "top_p", "min_p", "typical_p"]}
    assert choose(past=[0], top_k=1, repetition_penalty=9.0, **late).token == 0


def test_frequency_and_presence_look_at_what_was_generated_and_not_at_the_prompt():
    logits = torch.tensor([1.0, 0.5, 0.0])
    sampler = Sampler(settings(temperature=0, frequency_penalty=0.3))
    tokens, past = [], [0, 0, 0, 0]
    for _ in range(5):
        tokens.append(sampler.choose(logits, past + tokens).token)
    assert tokens == [0, 0, 1, 0, 1]
    sampler = Sampler(settings(temperature=0, presence_penalty=0.8))
    assert [sampler.choose(logits, past).token for _ in range(5)] == [0, 1, 0, 0, 0]


def test_bias_moves_logits_before_everything_else():
    biased = Sampler(settings(temperature=0), bias={3: 1.5, 0: -0.5})
    assert biased.choose(MODEL, []).token == 3
    assert MODEL[3] == torch.tensor(0.1).log()  # the model's own stay untouched
    tokenizer = Characters().build(["abc"])
    number = tokenizer.encode("b")[0]
    logits = torch.zeros(tokenizer.vocab_size)
    for name in ("b", str(number)):
        sampler = Sampler.for_text(
            settings(temperature=0, logit_bias={name: 2}), tokenizer, [], seed=1
        )
        assert sampler.choose(logits, []).token == number


@pytest.mark.parametrize(
    ("name", "told"), [("ab", "no single token"), ("99", "has [0-9]+ of them")]
)
def test_a_bias_of_no_token_is_refused(name, told):
    with pytest.raises(SettingsError, match=told):
        Sampler.for_text(settings(logit_bias={name: 1}), Characters().build(["abc"]), [])


def test_the_text_ends_only_after_the_least_number_of_tokens():
    wish = torch.tensor([0.0, 9.0, 1.0])
    sampler = Sampler(settings(temperature=0, min_tokens=2), ends=[1])
    assert [sampler.choose(wish, []).token for _ in range(3)] == [2, 2, 1]


def test_a_banned_token_is_never_chosen_and_takes_no_part():
    for values in ({"temperature": 0}, {"top_k": 2}):
        sampler = Sampler(settings(**values), banned=[1])
        logits = torch.tensor([1.0, 9.0, 2.0, 0.0])
        tokens = {sampler.choose(logits, []).token for _ in range(40)}
        assert tokens == ({2} if "temperature" in values else {0, 2})
        assert logits[1] == 9.0


class Only:
    """A constraint that allows some tokens."""

    def __init__(self, *tokens: int) -> None:
        self.tokens, self.told = tokens, []

    def mask(self, logits):
        masked = torch.full_like(logits, -INF)
        masked[list(self.tokens)] = logits[list(self.tokens)]
        return masked

    def accept(self, token):
        self.told.append(token)

    def rollback(self, count):
        del self.told[len(self.told) - count :]


def test_constraints_come_before_the_steps_and_are_told():
    only = Only(1, 3)
    sampler = Sampler(settings(top_k=1, frequency_penalty=2.0), constraints=[only])
    assert [sampler.choose(MODEL, []).token for _ in range(2)] == [1, 3]
    assert only.told == [1, 3]


def test_constraints_that_leave_nothing_are_told():
    for constraints in ([Only()], [Only(1), Only(2)]):
        with pytest.raises(UserError, match="leave no token"):
            Sampler(settings(), constraints=constraints).choose(MODEL, [])


def test_logprobs_are_the_models_own():
    logits = torch.tensor([0.1, 0.2, 0.7, 0.0]).log()
    values = {"temperature": 0.5, "top_k": 1, "repetition_penalty": 3.0, "logprobs": 9}
    choice = choose(logits, **values)
    assert choice.token == 2
    assert math.isclose(math.exp(choice.logprob), 0.7, rel_tol=1e-5)
    assert [token for token, _ in choice.top_logprobs] == [2, 1, 0]  # 3 is impossible
    assert [math.exp(each) for _, each in choice.top_logprobs] == pytest.approx([0.7, 0.2, 0.1])
    assert choose(logits).top_logprobs == ()
    assert len(choose(logits, logprobs=2).top_logprobs) == 2


def test_processed_logprobs_are_of_what_is_drawn_from():
    values = {"logprobs": 4, "logprobs_mode": "processed"}
    told = choose(temperature=0.5, top_k=2, **values).top_logprobs
    assert [token for token, _ in told] == [0, 1]
    assert [math.exp(each) for _, each in told] == pytest.approx([0.64, 0.36])
    greedy = choose(past=[0], temperature=0, repetition_penalty=100, **values)
    assert greedy.token == 1
    assert math.exp(greedy.logprob) == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_every_float_type_is_taken(dtype):
    assert choose(torch.tensor([0.0, 1.0, 8.0], dtype=dtype), temperature=0.1).token == 2


def test_the_seed_decides_and_the_global_generators_are_left_alone():
    logits = torch.zeros(50)
    torch.manual_seed(1)
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    drawn = [[Sampler(settings(), seed).choose(logits, []).token] for seed in (5, 5, 6, 7, 8)]
    assert drawn[0] == drawn[1]
    assert len({each[0] for each in drawn}) > 1
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])


def test_a_token_depends_on_the_seed_and_its_place_alone():
    """Whatever was drawn from before, and whether the draws before were greedy."""
    flat, steep = torch.zeros(50), torch.zeros(50)
    steep[7] = 99.0
    one, other = Sampler(settings()), Sampler(settings())
    for _ in range(3):
        one.choose(flat, [])
        other.choose(steep, [])
    assert one.choose(flat, []).token == other.choose(flat, []).token


@pytest.mark.parametrize("bad", [[0.0, float("nan")], [0.0, INF], [-INF, -INF], [float("nan")] * 2])
def test_output_that_is_not_finite_is_refused(bad):
    for values in ({}, {"temperature": 0}):
        with pytest.raises(CoterieError, match="not finite"):
            choose(torch.tensor(bad), **values)


def reference(logits, past, made, given):
    """Return the distribution drawn from, in float64, by full sorts, in the default order."""
    x = logits.double().numpy().copy()
    for token in set(past[-given.repetition_window :]):
        x[token] *= given.repetition_penalty if x[token] < 0 else 1 / given.repetition_penalty
    for token in set(made):
        x[token] -= given.frequency_penalty * made.count(token) + given.presence_penalty
    x = x / given.temperature

    def keep(order, count):
        gone = np.ones(len(x), dtype=bool)
        gone[order[:count]] = False
        x[gone] = -np.inf

    def chances():
        each = np.exp(x - x.max())
        return each / each.sum()

    def needed(order, mass):
        return int(np.searchsorted(chances()[order].cumsum(), mass - 1e-12)) + 1

    if given.top_k:
        keep(np.argsort(-x, kind="stable"), given.top_k)
    order = np.argsort(-x, kind="stable")
    keep(order, needed(order, given.top_p))
    keep(np.flatnonzero(chances() >= given.min_p * chances().max()), None)
    p = chances()
    surprise = -np.log(np.where(p > 0, p, 1e-300))
    order = np.argsort(np.abs(surprise - (p * surprise).sum()), kind="stable")
    keep(order, needed(order, given.typical_p))
    return chances()


SAMPLERS = {
    "plain": {},
    "temperature": {"temperature": 0.6},
    "top_k": {"top_k": 7},
    "top_p": {"top_p": 0.7},
    "min_p": {"min_p": 0.2},
    "typical_p": {"typical_p": 0.8},
    "penalties": {"repetition_penalty": 1.7, "repetition_window": 3,
                  "frequency_penalty": 0.4, "presence_penalty": -0.3},
    "all": {"temperature": 1.4, "top_k": 25, "top_p": 0.9, "min_p": 0.05, "typical_p": 0.9,
            "repetition_penalty": 1.3, "frequency_penalty": 0.2, "presence_penalty": 0.3},
}  # fmt: skip
PAST, MADE = [3, 1, 4, 1, 5, 9, 2], [5, 9, 2, 5]


def prepared(values, seed=11):
    """Return a sampler that has written `MADE`, its logits and the reference's distribution."""
    given = settings(seed=seed, **values)
    sampler = Sampler(given)
    for token in MADE:
        certain = torch.full((40,), -1e9)
        certain[token] = 1e9
        assert sampler.choose(certain, []).token == token
    logits = torch.from_numpy(np.random.default_rng(5).standard_normal(40)).float() * 1.5
    return sampler, logits, reference(logits, PAST + MADE, MADE, given)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_distribution_is_that_of_the_reference(name):
    sampler, logits, expected = prepared(
        SAMPLERS[name] | {"logprobs": 40, "logprobs_mode": "processed"}
    )
    found = np.zeros(40)
    for token, logprob in sampler.choose(logits, PAST + MADE).top_logprobs:
        found[token] = math.exp(logprob)
    assert np.abs(found - expected).max() < 1e-6


def p_value(values, draws: int) -> float:
    _, logits, expected = prepared(values)
    counts = np.zeros(len(expected))
    sampler, _, _ = prepared(values)
    kept = sampler._counts.copy()
    for _ in range(draws):
        counts[sampler.choose(logits, PAST + MADE).token] += 1
        sampler._counts[:] = kept
    assert counts[expected == 0].sum() == 0
    likely = expected * draws >= 5
    seen = np.append(counts[likely], counts[~likely].sum())
    due = np.append(expected[likely], expected[~likely].sum()) * draws
    seen, due = seen[due > 0], due[due > 0]
    statistic = torch.tensor(((seen - due) ** 2 / due).sum())
    return float(torch.special.gammaincc(torch.tensor((len(due) - 1) / 2), statistic / 2))


def test_draws_follow_the_distribution():
    assert p_value(SAMPLERS["all"], 400) > 1e-4


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", SAMPLERS)
def test_twenty_thousand_draws_follow_the_distribution(name):
    assert p_value(SAMPLERS[name], 20_000) > 1e-4
