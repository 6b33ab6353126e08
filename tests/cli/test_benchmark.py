"""`coterie benchmark`: what it takes, prints and saves."""

from __future__ import annotations

import json

import pytest

from coterie.benchmark import Ceilings
from coterie.cli.app import run as call


@pytest.fixture(autouse=True)
def ceilings(monkeypatch):
    found = Ceilings(2, 8e9, 4e9, 2e10, 1e11, 1e11)  # measuring takes seconds and a gigabyte
    monkeypatch.setattr("coterie.benchmark.measure_ceilings", lambda: found)


def test_a_run_is_measured_and_the_table_saved(tiny_run, tmp_path, capsys):
    out = tmp_path / "new" / "table.json"
    words = [
        "tiny",
        "cache=none",
        "--batch",
        "1,2",
        "--prompt",
        "4",
        "--tokens",
        "3",
        "--rounds",
        "1",
    ]
    assert call(["benchmark", "decode", *words, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "ours" in said
    assert "Bound of one stream" in said
    saved = json.loads(out.read_text())
    assert [row["batch"] for row in saved["rows"]] == [1, 2]
    assert saved["sampling"]["cache"]["kind"] == "none"
    assert saved["machine"]["torch"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--against", "transformer"], "did you mean “transformers”"),
        (["--batch", "1,x"], "whole numbers"),
        (["7M"], "7M"),
        (["tiny", "2M"], "One run or size"),
        (["tiny", "tokens=3"], "tokens"),
    ],
)
def test_what_it_cannot_measure_is_refused(tiny_run, capsys, words, said):
    assert call(["benchmark", "decode", *words]) == 2
    assert said in capsys.readouterr().err
