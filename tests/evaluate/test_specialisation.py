"""The analysis of routing, on a model whose routing was planted and on numbers known by hand."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from coterie.evaluate.specialisation import (
    analyse_routing,
    information,
    saturation,
    selections,
)
from coterie.model import DecoderSettings, routed_layers
from coterie.model.observe import Steering, steered

VOCABULARY = 16


@pytest.fixture(scope="module")
def planted():
    """Token t goes to expert t % 4 of the only layer, whatever stands before it."""
    decoder = DecoderSettings.model_validate({
        "layers": 1, "width": VOCABULARY, "context": 8, "vocab_size": VOCABULARY,
        "attention": {"kind": "grouped", "heads": 2}, "position": "none",
        "feedforward": {"kind": "moe", "experts": [{"count": 4}], "experts_per_token": 1,
                        "router": {"renormalise": False}},
    }).build(torch.Generator().manual_seed(0)).double()  # fmt: skip
    with torch.no_grad():
        decoder.embedding.weight.copy_(torch.eye(VOCABULARY))
        block: Any = decoder.blocks[0]
        block.attention.output.zero_()
        owner = torch.eye(4)[torch.arange(VOCABULARY) % 4].T
        routed_layers(decoder)[0].router.weight.copy_(owner * 10)
        for name, parameter in decoder.named_parameters():
            if "experts" in name or "head" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(1))
    return decoder


def rows(tokens, count, seed):
    random = np.random.default_rng(seed)
    return [random.choice(tokens, 9).tolist() for _ in range(count)]


def analyse(decoder, texts, **options) -> Any:
    return analyse_routing(decoder, texts, permutations=19, **options)[0]


def test_planted_routing_is_found(planted):
    every = list(range(VOCABULARY))
    use = analyse(planted, {"one": rows(every, 40, 0), "other": rows(every, 40, 1)})
    share = np.array(use.health.load) / sum(use.health.load)
    entropy = -(share * np.log(share)).sum()
    assert sum(use.health.load) == 80 * 8
    np.testing.assert_allclose(use.weight, share * 4)
    assert use.expert_entropy == pytest.approx(entropy)
    assert use.token.nats == pytest.approx(entropy)  # the token says the expert
    assert use.token.null < 0.2
    assert use.token.p == 0.05
    assert use.position.nats == pytest.approx(use.position.null, abs=0.02)  # no position does
    assert use.position.p > 0.05
    assert use.told["domain"].plain.p > 0.05
    assert use.told["domain"].given_token.nats == pytest.approx(0, abs=1e-9)
    assert use.together_even == 0.0  # one expert a token: no two are together
    assert np.nansum(use.together) == 0
    assert use.entropy < 0.01
    assert use.margin > 0.9


def test_experts_of_a_domain_are_told_from_experts_of_its_words(planted):
    texts = {"low": rows([0, 1, 4, 5], 30, 0), "high": rows([2, 3, 6, 7], 30, 1)}
    use = analyse(planted, texts)
    assert use.told["domain"].plain.nats == pytest.approx(math.log(2))
    assert use.told["domain"].plain.p == 0.05
    assert use.told["domain"].given_token.nats == pytest.approx(0, abs=1e-9)  # the words say it all
    np.testing.assert_allclose(use.domains, [[2, 0], [2, 0], [0, 2], [0, 2]])


def test_what_an_expert_is_worth_is_the_loss_without_it(planted):
    texts = {"low": rows([0, 1, 4, 5], 5, 0), "high": rows([2, 3, 6, 7], 5, 1)}
    done = []
    use = analyse(planted, texts, masking=texts, progress=done.append)
    assert done == [1, 2, 3, 4]
    for domain, some in enumerate(texts.values()):
        tokens = torch.tensor(some)
        with torch.no_grad():
            plain = planted(tokens[:, :-1], tokens[:, 1:]).losses.mean()
            with steered(planted, Steering({0: (2,)})):
                without = planted(tokens[:, :-1], tokens[:, 1:]).losses.mean()
        assert use.masked[2, domain] == pytest.approx(float(without - plain))
    assert use.masked[2, 0] == pytest.approx(0, abs=1e-12)  # no token of this domain went there
    assert abs(use.masked[2, 1]) > 1e-3


def test_one_domain_says_nothing_of_domains(planted):
    use = analyse(planted, {"one": rows([0, 1], 4, 0)})
    assert use.told == {}
    assert use.masked is None
    assert use.health.load[2:] == (0, 0)


def test_information_is_that_of_the_table():
    weights = np.array([[1, 0], [0.5, 0.5], [0, 1], [0, 1.0]])
    label = np.array([0, 0, 9, 9])
    joint = np.array([[1.5, 0.5], [0, 2]]) / 4
    independent = np.outer(joint.sum(1), joint.sum(0))
    pairs = zip(joint.flat, independent.flat, strict=True)
    expected = sum(p * math.log(p / q) for p, q in pairs if p)
    assert information(label, weights) == pytest.approx(expected)


def test_pairs_are_compared_with_independence():
    decoder = DecoderSettings.model_validate({
        "layers": 1, "width": 8, "context": 8, "vocab_size": VOCABULARY,
        "attention": {"kind": "grouped", "heads": 2},
        "feedforward": {"kind": "moe", "experts": [{"count": 4}], "experts_per_token": 2},
    }).build(torch.Generator().manual_seed(3))  # fmt: skip
    texts = {"one": rows(list(range(VOCABULARY)), 20, 0)}
    use = analyse(decoder, texts)
    tokens = torch.tensor(texts["one"])
    with torch.no_grad():
        (stats,) = decoder.eval()(tokens[:, :-1]).router_stats
    sets = [set(row) for row in stats.indices.tolist()]
    for a, b in ((0, 1), (2, 3)):
        both = sum({a, b} <= each for each in sets) * len(sets)
        apart = sum(a in each for each in sets) * sum(b in each for each in sets)
        found = use.together[a, b]
        assert (np.isnan(found) and not apart) or found == pytest.approx(both / apart)
    assert use.together_even == pytest.approx((1 / 6) / (1 / 2) ** 2)


def test_a_label_of_stretches_is_told_and_what_is_unknown_left_out(planted):
    # Two speakers with words, and so experts, of their own take turns of three tokens.
    random, texts, who = np.random.default_rng(0), [], []
    for _ in range(20):
        turns = random.permutation([0, 1, 0])
        row = np.concatenate([random.choice([[0, 1], [2, 3]][each], 3) for each in turns])
        texts.append(row.tolist())
        who.append(np.repeat(turns, 3))
        who[-1][0] = -1  # nobody has spoken yet
    use = analyse(planted, {"one": texts}, labels={"speaker": {"one": who}})
    (told,) = use.told.values()  # one domain is none
    label = np.concatenate([each[:8] for each in who])
    known = label >= 0
    experts = np.concatenate([row[:8] for row in texts])  # token t is of expert t
    expected = information(label[known], np.eye(4)[experts][known])
    assert told.plain.nats == pytest.approx(expected)
    assert told.plain.nats > 0.6
    assert told.plain.p == 0.05
    assert told.plain.null < 0.1
    assert told.given_token.nats == pytest.approx(0, abs=1e-9)


def test_turns_dealt_whole_make_no_evidence_of_few(planted):
    # Two turns, each of one word: dealt token by token this would be overwhelming evidence.
    who = {"one": [np.repeat([0, 1], [4, 5])]}
    use = analyse(planted, {"one": [[0] * 4 + [1] * 5]}, labels={"speaker": who})
    assert use.told["speaker"].plain.nats == pytest.approx(math.log(2))
    assert use.told["speaker"].plain.p == 1.0  # either deal gives as much


def test_saturation_is_the_share_of_experts_that_are_kept(planted):
    chosen = selections(planted, {"one": [[0, 1, 2, 3, 5]], "other": [[7, 6, 5]]})[0]
    assert sorted(chosen[:, 0].tolist()) == [0, 1, 2, 2, 3, 3]
    earlier, last = np.array([[0, 1], [2, 3]]), np.array([[1, 0], [0, 3]])
    assert saturation(earlier, last, 4) == 0.75
    assert saturation(last, last, 4) == 1.0
    assert saturation(np.array([[0, 4]]), np.array([[1, 4]]), 4) == 0.0  # 4: there is none
    random = np.random.default_rng(0)
    one, other = (random.permuted(np.tile(np.arange(8), (4000, 1)), axis=1)[:, :2] for _ in "ab")
    assert saturation(one, other, 8) == pytest.approx(2 / 8, abs=0.02)
