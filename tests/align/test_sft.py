# pyright: basic, reportOptionalMemberAccess=false, reportOptionalSubscript=false
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOptionalOperand=false
"""Fine-tuning learns what the assistant says and nothing else, and resumes to the bit."""

from __future__ import annotations

import pytest
import torch

from coterie.align.methods import method_of
from coterie.api.alignment import aligned
from coterie.batch import IGNORE
from coterie.checkpoint import load_model
from coterie.foundation.errors import DataError, SettingsError, TokenizerError
from coterie.foundation.events import Notice
from coterie.foundation.layers import Layer
from coterie.foundation.runs import RunDirectory
from coterie.tokenizer.chat import template_of
from coterie.train import train
from coterie.train.events import Evaluated, StepDone
from coterie.train.flops import step_flops
from coterie.train.proof import prove_resume
from tests.align.conftest import ROWS

SHORT = {
    "steps": 4, "epochs": None, "batch_size": 2, "evaluate_every": 2, "sample_every": 0,
    "checkpoint_every": 2, "schedule": {"kind": "constant", "warmup": 0},
}  # fmt: skip


def settings_of(base, path, align=None, **train_settings):
    values = {"train": SHORT | train_settings, "align": align or {}}
    return aligned("sft", base, {"data": str(path)}, [Layer("test", values)])


def tuned(settings, run, resume=False):
    events = []
    method = method_of(settings, run)
    train(settings, run, preset="x", observers=[events.append], resume=resume, method=method)
    return events


@pytest.mark.parametrize("lora", [None, {"rank": 2}])
def test_tuning_learns_moves_what_it_should_and_resumes(base, rows_of, tmp_path, lora):
    settings = settings_of(base, rows_of(ROWS), {"lora": lora})
    whole = RunDirectory.create(tmp_path / "r", "whole")
    events = tuned(settings, whole)
    losses = [e.loss for e in events if isinstance(e, StepDone)]
    held = [e.loss for e in events if isinstance(e, Evaluated)]
    assert losses[-1] < losses[0]
    assert held[-1] < held[0]

    parts = RunDirectory.create(tmp_path / "r", "parts")
    half = settings.model_copy(update={"train": settings.train.model_copy(update={"steps": 2})})
    first = tuned(half, parts)
    second = tuned(settings, parts, resume=True)
    assert [e.loss for e in first + second if isinstance(e, StepDone)] == losses
    one, other = load_model(whole), load_model(parts)
    before, after = base.decoder.state_dict(), one.decoder.state_dict()
    for name, tensor in after.items():
        assert torch.equal(tensor, other.decoder.state_dict()[name]), name
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert any("experts" in name for name in moved)
    assert any("attention" in name for name in moved)
    assert any("embedding" in name for name in moved) is (lora is None)
    asked = template_of(one.settings, one.tokenizer).render(
        [{"role": "user", "content": "a"}], ask=True
    )
    assert asked == "USER:\na\n\nASSISTANT:\n"
    proof = prove_resume(whole, 2, methods=method_of)
    assert proof.equal, proof


def test_only_what_the_assistant_says_is_a_target_and_its_mean_is_the_loss(base, rows_of):
    settings = settings_of(base, rows_of(ROWS), {"valid_fraction": 0.0})
    method = method_of(settings, None)
    settings, data = method.prepare(settings, lambda said: None)
    tokenizer, end = base.tokenizer, base.tokenizer.end_of_text
    assert data.valid is None
    read, answers = [], []
    for number in range(data.train.count):
        batch = data.train.in_order([number])
        for document in range(int(batch.documents.max()) + 1):
            at = batch.documents[0] == document
            read.append(tokenizer.decode(batch.tokens[0][at].tolist()))
            told = batch.targets[0][at]
            assert int(told[-1]) == end
            answers.append(tokenizer.decode(told[told != IGNORE][:-1].tolist()))
    assert sorted(answers) == sorted(f"is {n * n}" for n in range(12))
    assert sorted(read)[1] == "USER:\n1 times 1\n\nASSISTANT:\nis 1"

    decoder = settings.model.build().double()
    method.begin(decoder, data, lambda said: None)
    batch = data.train.batch(0, 2)
    terms = method.objective(settings)
    from coterie.train.objective import Models

    found = next(t for t in terms(Models(decoder), batch).terms if t.name == "loss")
    mean = found.total / terms.counts(batch)["targets"]
    from coterie.model.context import ForwardContext

    logits = decoder(batch.tokens, None, ForwardContext.of(batch)).logits.log_softmax(-1)
    picked = logits.gather(2, batch.targets.clamp(min=0)[..., None])[..., 0]
    by_hand = -picked[batch.targets != IGNORE].mean()
    assert torch.allclose(mean, by_hand, atol=1e-12)


def test_packed_texts_are_read_as_if_alone_and_prompts_teach_nothing(base, rows_of):
    short = {"valid_fraction": 0.0, "template": "plain"}
    settings = settings_of(base, rows_of(ROWS), short)
    method = method_of(settings, None)
    settings, data = method.prepare(settings, lambda said: None)
    decoder = base.decoder.double().eval()
    from coterie.model.context import ForwardContext

    row = data.train.in_order([0])
    assert int(row.documents.max()) > 0
    first = row.documents[0] == 0
    losses = decoder(row.tokens, row.targets, ForwardContext.of(row)).losses
    alone = decoder(row.tokens[:, first], row.targets[:, first]).losses
    assert torch.allclose(losses[:, first], alone, atol=1e-12)
    assert (losses[row.targets == IGNORE] == 0).all()


def test_layouts_are_the_same_conversation(base, rows_of):
    turns = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "is"}]
    same = [
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "is"}]},
        {"conversations": turns},
        {"prompt": "a", "completion": "is"},
        {"prompt": [{"role": "user", "content": "a"}], "completion": "is"},
        {"instruction": "a", "input": "", "output": "is"},
    ]
    settings = settings_of(base, rows_of(same), {"valid_fraction": 0.0})
    units = method_of(settings, None).units(lambda said: None)
    assert len({(*text.tokens.tolist(), *text.targets.tolist()) for (text,) in units}) == 1
    assert len(units) == 5


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "nothing"}, r"rows.jsonl:2: no conversation among the fields text"),
        ({"messages": [{"role": "user", "content": "a"}]}, r":2: no message is the assistant's"),
        ({"prompt": "<S>", "completion": "b"}, r":2: message 1 writes out .*“<S>”"),
        ({"prompt": 3, "completion": "b"}, r":2: .*“prompt” holds int, not text"),
    ],
)
def test_bad_rows_are_named(base, rows_of, row, said):
    settings = settings_of(base, rows_of([ROWS[0], row]))
    with pytest.raises(DataError, match=said):
        method_of(settings, None).prepare(settings, lambda said: None)


def test_what_is_too_long_is_left_out_and_told(base, rows_of):
    rows = [*ROWS, {"prompt": "a" * 70, "completion": "b"}]
    settings, told = settings_of(base, rows_of(rows)), []
    method_of(settings, None).prepare(settings, told.append)
    assert "1 of 13 rows are longer than 64 tokens" in told[0]
    settings = settings_of(base, rows_of(rows[-1:]))
    with pytest.raises(DataError, match=r"No row .* is left to train on"):
        method_of(settings, None).prepare(settings, told.append)


def test_rows_are_as_short_as_asked_and_no_longer_than_the_model_reads(base, rows_of):
    settings = settings_of(base, rows_of(ROWS), {"max_length": 48, "valid_fraction": 0})
    settings, data = method_of(settings, None).prepare(settings, lambda said: None)
    whole = {"model": settings.model, "train": settings.train}
    assert data.train.length == settings.row_length == 48
    assert settings.model.context == 64, "the model reads as much as before"
    longer = settings.model_copy(update={"align": settings.align | {"max_length": None}})
    assert whole == {"model": longer.model, "train": longer.train}
    assert step_flops(settings) < 48 / 64 * step_flops(longer), "what is counted is what is read"
    too_long = settings_of(base, rows_of(ROWS), {"max_length": 65})
    with pytest.raises(SettingsError, match=r"max_length=65 is more than the 64 tokens"):
        method_of(too_long, None).prepare(too_long, lambda said: None)


def test_wrong_settings_and_templates_are_refused(base, rows_of):
    path = rows_of(ROWS)
    with pytest.raises(SettingsError, match=r"align.loss: .*did you mean “completions”"):
        settings_of(base, path, {"loss": "completion"})
    with pytest.raises(SettingsError, match=r"align.lora.parts: no matrix .*“attenton”"):
        settings = settings_of(base, path, {"lora": {"parts": ["attenton"]}})
        method_of(settings, None).trainable(base.decoder)
    bad = settings_of(base, path, {"template": "one\n{% for m in messages %}\n{{ m.role "})
    with pytest.raises(TokenizerError, match=r"no Jinja: .* in line 3: '{{ m.role'"):
        method_of(bad, None).prepare(bad, lambda said: None)


def test_a_base_that_was_changed_is_refused(base, rows_of):
    settings = settings_of(base, rows_of(ROWS))
    settings = settings.model_copy(update={"align": settings.align | {"base_sha256": "0" * 64}})
    with pytest.raises(Exception, match="are not those that this run began from"):
        method_of(settings, None).prepare(settings, lambda said: None)


def test_notices_say_what_is_read(base, rows_of, tmp_path):
    settings = settings_of(base, rows_of(ROWS), {"lora": {"rank": 2}}, steps=1)
    events = tuned(settings, RunDirectory.create(tmp_path / "r", "said"))
    said = " ".join(e.message for e in events if isinstance(e, Notice))
    assert "The run reads 11 texts, packed into" in said
    assert "Adapters of" in said
