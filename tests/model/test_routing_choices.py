"""Who goes where: noise, dynamic and group-limited selection, expert dropout, the shared gate."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from coterie.model.context import ForwardContext
from coterie.model.experts import MixtureOfExperts
from coterie.model.experts.dropout import draw_excluded

WIDTH, EXPERTS = 8, 6


def build(**changes):
    pack = {"mlp": {"kind": "mlp", "width": 4}, "count": EXPERTS}
    settings = MixtureOfExperts.model_validate(
        {"experts": [pack], "experts_per_token": 2} | changes
    )
    settings.check(WIDTH)
    part = settings.build(WIDTH).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.normal_(0, 0.6, generator=generator)
    return part


def draw(tokens=40, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tokens, WIDTH, generator=generator, dtype=torch.float64)


NOISES = {
    "learned": {"kind": "learned"},
    "gaussian": {"kind": "gaussian", "std": 0.7},
    "jitter": {"kind": "jitter", "epsilon": 0.3},
}


@pytest.mark.parametrize("name", NOISES)
def test_noise_is_for_training_and_comes_from_the_global_generator(name):
    part, x = build(router={"noise": NOISES[name]}), draw()
    clean = x @ part.router.weight.T
    assert torch.equal(part.router.eval()(x).logits, clean)
    part.router.train()
    torch.manual_seed(3)
    noisy = part.router(x).logits
    torch.manual_seed(3)
    assert torch.equal(part.router(x).logits, noisy)
    assert not torch.equal(part.router(x).logits, noisy)
    torch.manual_seed(3)
    if name == "learned":
        spread = F.softplus(x @ part.router.noise.weight.T)
        expected = clean + torch.randn_like(clean) * spread
    elif name == "gaussian":
        expected = clean + 0.7 * torch.randn_like(clean)
    else:
        expected = (x * torch.empty_like(x).uniform_(0.7, 1.3)) @ part.router.weight.T
    torch.testing.assert_close(noisy, expected, rtol=0, atol=1e-12)
    routing = part.router(x)
    best = routing.scores.topk(2).indices
    assert torch.equal(routing.indices, best), "noise takes part in the selection"


def test_learned_noise_starts_at_zero_weights_and_is_learned():
    part = build(router={"noise": "learned"}).train()
    assert part.router.noise.initial_std == {"weight": 0.0}
    part(draw()[None])[0].square().sum().backward()
    assert part.router.noise.weight.grad.abs().max() > 0


def naive_dynamic(probabilities, mass, most):
    chosen, gathered = [], 0.0
    for e in sorted(range(len(probabilities)), key=lambda e: -probabilities[e]):
        if chosen and (gathered >= mass or len(chosen) == most):
            break
        chosen.append(e)
        gathered += probabilities[e]
    return chosen


@pytest.mark.parametrize("mass", [0.05, 0.4, 0.7, 1.0])
@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_dynamic_takes_the_fewest_experts_that_gather_the_mass(mass, score):
    part = build(
        experts_per_token=4, router={"score": score, "select": {"kind": "dynamic", "mass": mass}}
    )
    x = draw() * 2
    routing = part.router(x)
    logits = x @ part.router.weight.T
    scores = logits.softmax(-1) if score == "softmax" else torch.sigmoid(logits)
    shares = scores / scores.sum(-1, keepdim=True)
    for token in range(len(x)):
        expected = naive_dynamic(shares[token].tolist(), mass, 4)
        row = routing.indices[token].tolist()
        assert row == expected + [EXPERTS] * (4 - len(expected))
        gates = [float(scores[token, e].detach()) for e in expected] + [0.0] * (4 - len(expected))
        assert routing.gates[token].tolist() == pytest.approx(gates)
    sizes = (routing.indices < EXPERTS).sum(-1)
    if mass == 0.05:
        assert (sizes == 1).all()
    if mass == 1.0:
        assert (sizes == 4).all(), "bounded by experts_per_token"
    _, account = part(x[None])
    assert float(account.experts_per_token) == pytest.approx(float(sizes.double().mean()))


def test_the_entropy_regulariser_is_the_mean_entropy_and_reaches_the_router():
    select = {"kind": "dynamic", "mass": 0.5, "entropy": 0.3}
    part, x = build(router={"select": select}), draw(12)
    valid = torch.ones(2, 6, dtype=torch.bool)
    valid[1, 3:] = False
    _, account = part(x.view(2, 6, WIDTH), ForwardContext(valid=valid))
    p = (x @ part.router.weight.T).softmax(-1)[valid.flatten()]
    torch.testing.assert_close(account.entropy_term, -0.3 * (p * p.log()).sum(-1).mean())
    account.entropy_term.backward()
    assert part.router.weight.grad.abs().max() > 0
    assert build()(x[None])[1].entropy_term.item() == 0.0


def test_the_entropy_regulariser_survives_probabilities_that_underflow():
    part = build(router={"select": {"kind": "dynamic", "entropy": 0.3}}).float()
    _, account = part(1e5 * draw(5).float()[None])
    account.entropy_term.backward()
    assert torch.isfinite(part.router.weight.grad).all()


@pytest.mark.parametrize(("group_score", "counted"), [("max", 1), ("top_two_sum", 2)])
@pytest.mark.parametrize("biased", [False, True])
def test_group_limited_uses_the_best_groups_alone(group_score, counted, biased):
    select = {"kind": "group_limited", "groups": 3, "groups_per_token": 2,
              "group_score": group_score}  # fmt: skip
    part = build(
        experts_per_token=3, router={"score": "sigmoid", "select": select},
        balance="bias" if biased else "none",
    )  # fmt: skip
    bias = torch.zeros(EXPERTS)
    if biased:
        bias = torch.tensor([0.3, -0.2, 0.1, 0.0, -0.4, 0.2])
        part.balance.selection_bias.copy_(bias)
    x = draw()
    routing = part.router(x, part.balance.selection_bias)
    scores = torch.sigmoid(x @ part.router.weight.T)
    for token in range(len(x)):
        ranked = (scores[token] + bias).tolist()
        groups = [ranked[2 * g : 2 * g + 2] for g in range(3)]
        best = sorted(range(3), key=lambda g: -sum(sorted(groups[g])[-counted:]))[:2]
        allowed = [2 * g + i for g in best for i in range(2)]
        expected = sorted(allowed, key=lambda e: -ranked[e])[:3]
        assert routing.indices[token].tolist() == expected
        gates = scores[token, expected]
        torch.testing.assert_close(routing.gates[token], gates / gates.sum())


@pytest.mark.parametrize(
    ("select", "problem"),
    [
        ({"groups": 4, "groups_per_token": 1}, "cannot be cut into 4"),
        ({"groups": 2, "groups_per_token": 3}, "only 2 groups"),
        ({"groups": 6, "groups_per_token": 6}, "two experts or more"),
        ({"groups": 6, "groups_per_token": 1, "group_score": "max"}, "hold 1 experts"),
    ],
)
def test_impossible_groups_are_refused(select, problem):
    with pytest.raises(ValueError, match=problem):
        build(router={"select": {"kind": "group_limited"} | select})


def test_bounds_that_disagree_are_refused():
    with pytest.raises(ValueError, match="the same bound"):
        build(router={"select": {"kind": "dynamic", "most": 3}})
    assert build(router={"select": {"kind": "dynamic", "most": 2}}).router.selector.mass == 0.4


def test_expert_dropout_leaves_out_whole_experts_but_never_too_many():
    torch.manual_seed(0)
    drawn = torch.stack([draw_excluded(6, 2, 0.5, torch.device("cpu")) for _ in range(2000)])
    remaining = (~drawn).sum(-1)
    assert int(remaining.min()) == 2
    usual = drawn[remaining > 2].double().mean(0)
    assert (usual.max() - usual.min()) < 0.08, "no expert is left out more than another"
    rare = torch.stack([draw_excluded(6, 2, 0.1, torch.device("cpu")) for _ in range(4000)])
    assert float(rare.double().mean()) == pytest.approx(0.1, abs=0.01)


SELECTS = {
    "top_k": "top_k",
    "dynamic": {"kind": "dynamic", "mass": 1.0},
    "group_limited": {"kind": "group_limited", "groups": 3, "groups_per_token": 1},
}


@pytest.mark.parametrize("name", SELECTS)
@pytest.mark.parametrize("balance", ["none", "bias"])
def test_no_token_goes_to_an_expert_that_is_excluded(name, balance):
    part = build(expert_dropout=0.4, router={"select": SELECTS[name]}, balance=balance)
    x = draw(120)
    seen = set()
    for seed in range(8):
        torch.manual_seed(seed)
        excluded = draw_excluded(EXPERTS, 2, 0.4, x.device)
        torch.manual_seed(seed)
        out, account = part.train()(x[None])
        assert account.load[excluded].sum() == 0
        assert torch.isfinite(out).all()
        total = int(account.load.sum())
        assert total == 240 if name != "group_limited" else 120 <= total <= 240
        seen.add(tuple(excluded.tolist()))
    assert len(seen) > 2
    assert (part.eval()(x[None])[1].load > 0).all(), "evaluation uses all experts"


@pytest.mark.parametrize("name", SELECTS)
def test_a_bias_still_steers_when_experts_sit_out(name):
    part, x = build(router={"score": "sigmoid", "select": SELECTS[name]}, balance="bias"), draw()
    excluded = torch.tensor([False, True, False, False, True, False])
    bias = torch.tensor([0.0, 20.0, 0.0, 10.0, 0.0, 0.0])
    routing = part.router(x, bias, excluded_experts=excluded)
    assert (routing.indices[:, 0] == 3).all(), "present and preferred"
    assert not torch.isin(routing.indices, torch.tensor([1, 4])).any()
    gates = torch.sigmoid(x @ part.router.weight[3])
    others = routing.gates[:, 1:].sum(-1)
    if part.router.renormalise:
        torch.testing.assert_close(routing.gates.sum(-1), torch.ones(40).double())
    else:
        torch.testing.assert_close(routing.gates[:, 0], gates)
    assert (others >= 0).all()


@pytest.mark.parametrize("name", ["top_k", "dynamic"])
def test_where_too_few_are_left_a_place_stays_empty(name):
    part, x = build(router={"select": SELECTS[name], "renormalise": False}), draw()
    excluded = torch.tensor([True, True, False, True, True, True])
    routing = part.router(x, excluded_experts=excluded)
    assert (routing.indices == torch.tensor([2, EXPERTS])).all()
    assert (routing.gates[:, 1] == 0).all()
    torch.testing.assert_close(routing.gates[:, 0], routing.scores[:, 2])


def test_a_selection_made_before_is_taken_as_it_is():
    part, x = build(expert_dropout=0.4, balance="bias"), draw()
    excluded = torch.tensor([True, False, False, False, False, True])
    first = part.router(x, excluded_experts=excluded)
    again = part.router(x, torch.tensor([9.0, 0, 0, 0, 0, 0]), first.indices, ~excluded)
    assert torch.equal(again.indices, first.indices)
    torch.testing.assert_close(again.gates, first.gates)


def test_the_shared_gate_weighs_the_shared_experts_sum():
    part, x = build(shared_experts=2, shared_gate=True), draw()
    plain = build(shared_experts=2)
    plain.load_state_dict({k: v for k, v in part.state_dict().items() if "shared_gate" not in k})
    shared = sum(expert(x) for expert in part.shared)
    routed = plain(x[None])[0][0] - shared
    gate = torch.sigmoid(x @ part.shared_gate.weight[0])[:, None]
    torch.testing.assert_close(part(x[None])[0][0], routed + gate * shared, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="needs shared experts"):
        build(shared_gate=True)


RECOMPUTED = {
    "noise": {"router": {"noise": "learned"}},
    "jitter": {"router": {"noise": {"kind": "jitter", "epsilon": 0.5}}},
    "dynamic": {"router": {"select": {"kind": "dynamic", "mass": 0.6, "entropy": 0.1}}},
    "dropout": {"expert_dropout": 0.5},
    "capacity_factor": {"capacity_factor": 0.8},
    "global": {"balance": {"kind": "auxiliary", "coefficient": 0.5, "scope": "global"}},
    "all": {
        "router": {"noise": "gaussian", "select": {"kind": "dynamic", "mass": 0.6}},
        "expert_dropout": 0.3, "capacity_factor": 0.9,
        "balance": {"kind": "auxiliary", "coefficient": 0.5, "scope": "global"},
    },
}  # fmt: skip


@pytest.mark.parametrize("name", RECOMPUTED)
def test_recomputing_repeats_chance_and_gives_the_same_gradients(name, make_decoder, draw_tokens):
    moe = {"kind": "moe", "experts": [{"mlp": {"kind": "mlp", "width": 4}, "count": 4}],
           "experts_per_token": 2}  # fmt: skip
    changes = {"feedforward": moe | RECOMPUTED[name], "dropout": 0.2}
    tokens = draw_tokens(3, 12)

    def run(again):
        decoder = make_decoder(**changes).train()
        decoder.activation_checkpointing = again
        torch.manual_seed(7)
        loads = []
        for _ in range(2):  # two micro-batches
            output = decoder(tokens, tokens.roll(-1, 1))
            terms = [r.auxiliary + r.z + r.entropy_term for r in output.routing]
            (output.losses.sum() + sum(terms)).backward()
            loads.append([r.load.tolist() for r in output.routing])
        chance = torch.rand(1)
        return loads, chance, {n: p.grad for n, p in decoder.named_parameters()}

    loads, chance, gradients = run(again=False)
    again_loads, again_chance, again_gradients = run(again=True)
    assert again_loads == loads
    assert torch.equal(again_chance, chance), "the second pass consumes no chance of its own"
    for parameter, gradient in gradients.items():
        torch.testing.assert_close(again_gradients[parameter], gradient, rtol=0, atol=1e-11)
    assert math.isfinite(sum(float(g.abs().sum()) for g in gradients.values()))
