"""Runs of reinforcement: they learn, resume bit-equal, stop where they should, tell what failed."""

# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

import contextlib
import json
import shutil
import sys
import types

import numpy as np
import pytest
import torch

from coterie.align.methods import aligned_settings, method_of
from coterie.align.reinforce.experience import Collector, Course, assembled
from coterie.align.reinforce.method import text_of
from coterie.align.reinforce.rollout import Writer, Written
from coterie.align.rewards import Corpus, Judge, RewardError
from coterie.checkpoint import find_checkpoint, load_checkpoint, load_model
from coterie.foundation.layers import Layer
from coterie.foundation.runs import RunDirectory, runs_root
from coterie.train import train
from coterie.train.settings import RunSettings

TRAIN = {
    "evaluate_every": 2, "checkpoint_every": 1, "keep": 9, "sample_every": 0,
    "precision": "float32",
    "optimizer": {"kind": "adamw", "learning_rate": 0.01},
}  # fmt: skip
SMALL = {
    "prompts_per_rollout": 3, "texts_per_prompt": 4, "prompt_lines": 1, "judged_texts": 4,
    "rollout": {"temperature": 1.0, "max_tokens": 8, "compute": "torch"},
}  # fmt: skip
VOWELS = [{"kind": "pattern", "regex": "e"}]


def settings_of(base, kind="grpo", rewards=VOWELS, steps=4, **align):
    said = {"kind": kind, "rewards": rewards, **SMALL, **align}
    model = {"value": {}} if kind == "ppo" else None
    return aligned_settings(base, said, {**TRAIN, "steps": steps}, [Layer("test", {})], model)


def trained(settings: RunSettings, name: str, *, resume=False, steps=None):
    run = RunDirectory(runs_root() / name) if resume else RunDirectory.create(runs_root(), name)
    if steps is not None:
        told = settings.train.model_copy(update={"steps": steps})
        settings = settings.model_copy(update={"train": told})
    train(settings, run, preset="base", method=method_of(settings, run), resume=resume)
    return run


def events(run, kind):
    rows = map(json.loads, run.events.read_text().splitlines())
    return [row for row in rows if row["kind"] == kind]


@pytest.mark.parametrize(
    ("kind", "align"),
    [
        ("grpo", {"updates": 2, "kl_target": 0.01, "lines": [1, 2], "advance": 0.0}),
        ("ppo", {"updates": 2}),
        ("reinforce", {}),
        ("rejection", {"updates": 2, "keep": 2}),
    ],
)
def test_a_resumed_run_is_bit_equal_even_within_a_rollout(kind, align, base):
    settings = settings_of(base, kind, **align)
    whole = trained(settings, "whole")
    # The schedule follows from the steps: the run is cut by taking later checkpoints away.
    cut = RunDirectory(runs_root() / "cut")
    shutil.copytree(whole.path, cut.path)
    for path in sorted(cut.checkpoints.iterdir()):
        if path.is_dir() and path.name > "step-00000003":
            shutil.rmtree(path)
    trained(settings, "cut", resume=True)
    expected, found = (load_checkpoint(find_checkpoint(run)) for run in (whole, cut))
    for name, tensor in expected.model.items():
        assert torch.equal(found.model[name], tensor), name
    for name, tensor in expected.optimizer.items():
        assert torch.equal(found.optimizer[name], tensor), name


def test_what_is_rewarded_becomes_likelier_and_is_told_by_its_usual_names(base):
    settings = settings_of(
        base, steps=12, prompts_per_rollout=6, texts_per_prompt=8, kl=0.0,
        rewards=[{"kind": "pattern", "regex": "^e"}],
    )  # fmt: skip
    run = trained(settings, "learns")
    told = [each["figures"] for each in events(run, "rollout")]
    assert len(told) == 12
    first, last = (sum(each["reward"] for each in part) / 4 for part in (told[:4], told[-4:]))
    assert last > first + 0.2
    wanted = {
        "reward", "reward_std", "frac_reward_zero_std", "rewards/pattern/mean", "kl",
        "completions/mean_length", "completions/clipped_ratio",
    }  # fmt: skip
    assert wanted <= told[0].keys()
    step = events(run, "step")[-1]["auxiliary"]
    assert {"policy/entropy", "clip_ratio/low", "clip_ratio/high", "importance_ratio/mean",
            "routing/agreement"} <= step.keys()  # fmt: skip
    assert step["routing/agreement"] == 1.0  # on policy
    judged = events(run, "held_out_judged")[-1]
    assert judged["figures"]["reference_nats"] > 0
    assert "monosyllables" in judged["human"]


def test_a_reward_that_fails_names_the_sample_and_the_run_goes_on_once_it_is_mended(
    base, monkeypatch
):
    module, calls = types.ModuleType("mine"), []

    def judge(prompts, completions):
        calls.append(1)
        if len(calls) == 3:
            return [float("nan")] * len(completions)
        return [float(len(text)) for text in completions]

    module.judge = judge
    monkeypatch.setitem(sys.modules, "mine", module)
    settings = settings_of(base, rewards=[{"kind": "function", "function": "mine:judge"}])
    with pytest.raises(RewardError, match="mine:judge returned nan for “"):
        trained(settings, "fails")
    run = RunDirectory(runs_root() / "fails")
    assert events(run, "run_ended")[-1]["status"] == "failed"
    trained(settings, "fails", resume=True)
    assert events(run, "run_ended")[-1]["status"] == "finished"


def test_a_run_ends_where_the_kl_is_too_large_with_everything_saved(base):
    settings = settings_of(base, steps=8, stop_kl=1e-9, kl=0.0)
    run = trained(settings, "stops")
    assert find_checkpoint(run).name == "step-00000002"  # at its first evaluation
    assert any("align.stop_kl" in each["message"] for each in events(run, "notice"))


def test_settings_that_cannot_be_are_refused(base):
    with pytest.raises(ValueError, match="compared with others"):
        settings_of(base, texts_per_prompt=1)
    with pytest.raises(ValueError, match="lines are to grow"):
        settings_of(base, lines=[4, 2])


def test_rejection_learns_the_best_of_each_prompt_by_the_loss_of_fine_tuning(base):
    method = method_of(settings_of(base, "rejection", keep=2), None)
    decoder = method.reference()
    writer = Writer(decoder, method.tokenizer, method.alignment.rollout, 12)
    judge = Judge(method.alignment.rewards, Corpus())
    collector = Collector(method.alignment, decoder, None, writer, judge, contextlib.nullcontext)
    prompts = ["Shall I compare thee to a summer's day?\n", "And summer's lease\n"]
    found = collector.collect(prompts, 1, 0, Course(8, 1), 0.0)
    totals, texts = found.scores.total, [each.text for each in found.samples]
    kept = [
        method.tokenizer.decode(row[valid].numpy())
        for row, valid in zip(found.batch.targets, found.batch.valid, strict=True)
    ]
    for prompt in range(2):
        here = range(4 * prompt, 4 * prompt + 4)
        cut = sorted((totals[at] for at in here), reverse=True)[1]
        allowed = {texts[at] for at in here if totals[at] >= cut}
        assert {each.rstrip("\n") for each in kept[2 * prompt : 2 * prompt + 2]} <= {
            each.rstrip("\n") for each in allowed
        }
    assert set(totals) == {0.0, 1.0}, "the rewards differ, so that there is something to choose"
    objective = method.objective(settings_of(base, "rejection"))
    batch = found.batch
    term = objective(method.models(decoder), batch).terms[0]
    with torch.no_grad():
        losses = decoder(batch.tokens, batch.targets).losses
    share = float(term.total) / float(objective.counts(batch)[term.count])
    assert share == pytest.approx(float(losses.sum() / batch.valid.sum()), rel=1e-5)


def test_a_value_head_moves_beside_adapters(base):
    settings = settings_of(base, "ppo", steps=2, lora={"rank": 2}, updates=1)
    found = load_checkpoint(find_checkpoint(trained(settings, "critic"))).model
    assert found["value.weight"].abs().sum() > 0, "it begins at zero"


def test_a_tuned_run_writes_on_the_text_that_the_first_one_learnt(base):
    tuned = trained(settings_of(base, steps=1), "tuned")
    settings = settings_of(load_model(tuned.path), rewards=[{"kind": "long_words"}])
    _, data = method_of(settings, None).prepare(settings, lambda sentence: None)
    assert "Thou art more lovely and more temperate:\n" in data.train
    assert data.corpus.text.startswith("Shall I compare thee")


def test_what_ends_documents_is_no_part_of_a_prompt(base):
    tokenizer = base.tokenizer
    end = tokenizer.named_end
    tokens = np.array([*tokenizer.encode("May\n"), end, *tokenizer.encode("date\n"), end])
    assert text_of(tokenizer, tokens) == "May\n\n\ndate\n\n\n"


def test_padding_of_a_step_is_what_its_texts_leave(base):
    method = method_of(settings_of(base), None)
    texts = [([1, 2, 3], [4, 5]), ([1], [2]), ([1, 2], [3, 4, 5, 6])]
    written = [Written(p, t, [0.0] * len(t), "", True, None) for p, t in texts]
    batch = assembled(written, "token", 8)
    assert batch.tokens.shape == (3, 5)
    assert method.padding(batch, 999) == 999 - (4 + 1 + 5)
