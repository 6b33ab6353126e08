"""The largest micro-batch that fits is found with few trials, by real steps."""

from __future__ import annotations

import pytest
import torch

from coterie.api.given import resolve
from coterie.benchmark import largest
from coterie.benchmark.largest import find_largest, find_micro_batch
from coterie.cli.app import run as coterie
from coterie.foundation.layers import Layer
from coterie.train.step import Stepper


@pytest.mark.parametrize("most", [1, 7, 8, 60])
def test_bisection_finds_the_edge_and_tries_nothing_twice_its_size(most):
    for edge in range(most + 3):
        tried: list[int] = []

        def fits(rows, edge=edge, tried=tried):
            tried.append(rows)
            return rows <= edge

        assert find_largest(most, fits) == min(edge, most)
        assert max(tried) <= max(2 * edge, 1)
        assert len(tried) == len(set(tried)) <= 2 * most.bit_length() + 1


@pytest.fixture
def settings(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("To be, or not to be, that is the question.\n" * 60)
    train = {"batch_size": 12, "gradient_accumulation": 4}
    layer = Layer("test", {"data": {"source": str(text)}, "train": train})
    return resolve("quickstart", [layer], "tiny").settings


def test_a_step_that_runs_out_of_memory_does_not_fit(settings, monkeypatch):
    """Six and more rows do not: 5 fit, so a batch of 12 is cut into three pieces of four."""
    accumulate, sizes = Stepper._accumulate, []

    def scarce(self, batch, cuts, **rest):
        rows = batch.tokens.shape[0] // cuts
        sizes.append(rows)
        if rows > 5:
            raise torch.OutOfMemoryError("out of memory")
        return accumulate(self, batch, cuts, **rest)

    monkeypatch.setattr(Stepper, "_accumulate", scarce)

    found = find_micro_batch(settings, None, lambda said: None)
    assert (found.rows, found.pieces) == (5, 3)
    assert {rows: fits for rows, _, fits in found.tried} == {
        1: True, 2: True, 4: True, 8: False, 6: False, 5: True,
    }  # fmt: skip

    assert found.limit is not None


def test_a_cpu_run_is_held_to_a_limit_and_nothing_far_beyond_is_tried(settings, monkeypatch):
    """The process is said to hold 100 bytes and 10 a row; 150 are allowed: 5 rows."""
    held = {"rows": 0}
    take = largest._Trials._take

    def took(self, rows):
        held["rows"] = rows
        return take(self, rows)

    monkeypatch.setattr(largest._Trials, "_take", took)
    monkeypatch.setattr(largest, "resident_bytes", lambda what="": 100 + 10 * held["rows"])
    found = find_micro_batch(settings, 150, lambda said: None)
    assert (found.rows, found.pieces) == (5, 3)
    assert [(rows, size) for rows, size, _ in found.tried] == [
        (1, 110), (2, 120), (4, 140), (8, None), (6, 160), (5, 150),
    ]  # fmt: skip


def test_the_command_writes_an_overlay_or_says_that_nothing_fits(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("To be, or not to be, that is the question.\n" * 60)
    words = ["tune", "quickstart", "scale=tiny", "data.source=text.txt", "--micro-batch"]
    assert coterie([*words, "--memory", "900", "--out", "fits.yaml"]) == 0
    assert "gradient_accumulation: 1" in (tmp_path / "fits.yaml").read_text()
    assert coterie([*words, "--memory", "0.001", "--out", "none.yaml"]) == 2
    assert not (tmp_path / "none.yaml").exists()
    assert coterie([*words[:-1], "--memory", "3"]) == 2
    told = capsys.readouterr().err
    assert "Not even one row fits" in told
    assert "--micro-batch" in told
