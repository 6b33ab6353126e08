# pyright: basic, reportOptionalMemberAccess=false, reportOptionalSubscript=false
"""Adapters in a file of their own: merged, they are the tuned run, experts included."""

from __future__ import annotations

import pytest
import torch

from coterie.align.adapters import adapters_of, merge_adapters, save_adapters
from coterie.checkpoint import load_model
from coterie.foundation.errors import CheckpointError
from coterie.foundation.runs import RunDirectory
from coterie.train.randomness import seed_all
from tests.align.conftest import ROWS
from tests.align.test_sft import settings_of, tuned


@pytest.fixture
def answers(base, rows_of, tmp_path):
    """Return a run that was tuned by adapters of every matrix."""
    seed_all(3)
    run = RunDirectory.create(tmp_path / "runs", "answers")
    tuned(settings_of(base, rows_of(ROWS), {"lora": {"rank": 2, "scale": 1.5}}), run)
    return load_model(sorted(run.checkpoints.glob("step-*"))[-1])


def test_merged_into_their_base_they_are_the_tuned_run_to_the_bit(answers, base_path, tmp_path):
    path = tmp_path / "adapters.safetensors"
    count = save_adapters(answers, path)
    whole = sum(each.numel() for each in answers.decoder.parameters())
    assert count < whole
    assert any("experts" in name for name in adapters_of(answers))
    base = load_model(base_path)
    before = {name: each.clone() for name, each in base.decoder.state_dict().items()}
    found = merge_adapters(base, path).state_dict()
    wanted = answers.decoder.state_dict()
    moved = {name for name in found if not torch.equal(found[name], before[name])}
    adapted = {name.rpartition(".lora_")[0] for name in adapters_of(answers)}
    assert moved == adapted | {name for name in found if name.endswith("selection_bias")}
    for name in found:
        assert torch.equal(found[name], wanted[name]), name


def test_other_weights_and_other_files_are_refused(answers, base, base_path, tmp_path):
    path = tmp_path / "adapters.safetensors"
    save_adapters(answers, path)
    with pytest.raises(CheckpointError, match="were tuned on other weights"):
        merge_adapters(answers, path)
    with pytest.raises(CheckpointError, match="holds no adapters of ours"):
        merge_adapters(base, base_path / "model.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:50])
    with pytest.raises(CheckpointError, match="cannot be read"):
        merge_adapters(base, tmp_path / "cut.safetensors")
    with pytest.raises(CheckpointError, match="has no adapters: all of its weights") as refused:
        save_adapters(base, tmp_path / "none.safetensors")
    assert "--lora 8" in refused.value.hint
