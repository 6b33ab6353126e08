"""The proof that a run resumes to the bit, and that it notices where one does not."""

import pytest
import torch

from coterie.train import proof, train
from coterie.train.proof import prove_resume


@pytest.fixture
def trained(tiny, new_run):
    changes = {"ema": 0.9, "clip": {"kind": "adaptive"}, "sample_every": 0, "evaluate_every": 0}
    run = new_run("run")
    train(tiny(train=changes, model={"dropout": 0.1}), run, preset="tiny")
    return run


def test_a_run_resumes_to_the_bit_and_is_only_read(trained):
    before = {path: path.read_bytes() for path in trained.path.rglob("*") if path.is_file()}
    told = []
    found = prove_resume(trained, 5, told.append)
    assert found.equal
    assert (found.step, found.steps, found.apart) == (6, 5, 0.0)
    assert found.tensors > 40
    assert before == {path: path.read_bytes() for path in trained.path.rglob("*") if path.is_file()}
    assert any("without a break" in each for each in told)


def test_what_a_resumed_run_does_otherwise_is_named(trained, monkeypatch):
    restore, opened = proof.restore_session, []

    def forgetful(session, checkpoint):
        restore(session, checkpoint)
        opened.append(session)
        if len(opened) == 3:  # the one that goes on from half way
            torch.manual_seed(0)
            session.stepper.clipper.observe(1.0)

    monkeypatch.setattr(proof, "restore_session", forgetful)
    found = prove_resume(trained, 4)
    assert not found.equal
    assert {"random states", "clip history", "losses"} <= set(found.others)
    assert "embedding.weight" in found.unequal
    assert found.apart > 0
