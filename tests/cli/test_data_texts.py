"""Texts become better texts on the command line."""

from __future__ import annotations

import json

import pytest
from pyarrow import parquet

from coterie.cli.app import run as coterie

TEXT = "It was the best of times, it was the worst of times, it was the age of wisdom. " * 3


@pytest.fixture
def rows(places):
    texts = [
        TEXT,
        "something else altogether",
        TEXT.upper(),
        TEXT + "It was the age of foolishness.",
    ]
    lines = (json.dumps({"text": text, "language": "en"}) + "\n" for text in texts)
    (places / "rows.jsonl").write_text("".join(lines))
    return places


@pytest.mark.parametrize("out", ["unique.jsonl", "unique.parquet", "unique"])
def test_equal_documents_are_left_out_and_told(rows, capsys, out):
    words = ["data", "dedup", "rows.jsonl", "--threshold", "1"]
    assert coterie([*words, "--out", out, "--report", "twice.jsonl"]) == 0
    assert "4 documents in, 3 stay; 1 equal and 0 nearly equal ones in 1 group" in (
        capsys.readouterr().out
    )  # fmt: skip
    group = json.loads((rows / "twice.jsonl").read_text())
    assert group["kept"] == "rows.jsonl:1"
    assert group["removed"] == [{"name": "rows.jsonl:3", "similarity": 1.0, "equal": True}]
    if out == "unique":
        assert sorted(path.name for path in (rows / out).iterdir()) == [
            "rows-1.txt", "rows-2.txt", "rows-4.txt",
        ]  # fmt: skip
        return
    if out == "unique.jsonl":
        found = [json.loads(line) for line in (rows / out).read_text().splitlines()]
    else:
        found = parquet.read_table(rows / out).to_pylist()
    assert [row["name"] for row in found] == ["rows.jsonl:1", "rows.jsonl:2", "rows.jsonl:4"]
    assert found[0] == {
        "text": TEXT, "name": "rows.jsonl:1", "source": "rows.jsonl", "language": "en",
    }  # fmt: skip
    assert coterie([*words, "--out", out]) == 2
    assert "exists already" in capsys.readouterr().err


def test_near_documents_as_json_or_what_is_missing(rows, capsys):
    words = ["data", "dedup", "rows.jsonl", "--ngram", "2", "--json"]
    try:
        import rensa  # noqa: F401
    except ImportError:
        assert coterie(words) == 2
        assert "coterie[dedup]" in capsys.readouterr().err
        return
    assert coterie(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["documents"], told["kept"], told["near"], told["equal"]) == (4, 2, 1, 1)
    assert [group["kept"] for group in told["groups"]] == ["rows.jsonl:4"]


@pytest.mark.parametrize(
    ("words", "why"),
    [(["--threshold", "0"], "threshold"), (["--out", "x.csv"], "no kind of file"),
     (["--out", "a", "--report", "a/b"], "would be inside"), (["--seed", "-1"], "seed")],
)  # fmt: skip
def test_mistakes_leave_nothing(rows, capsys, words, why):
    assert coterie(["data", "dedup", "rows.jsonl", "--threshold", "1", *words]) == 2
    assert why in capsys.readouterr().err
    assert [path.name for path in rows.iterdir() if path.name != "rows.jsonl"] in ([], ["runs"])
