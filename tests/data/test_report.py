"""What a reading left out and chose: each thing listed, however many there are."""

from __future__ import annotations

from coterie.data import report as module
from coterie.data.report import ReadingReport, were


def test_everything_left_out_is_listed_or_counted_by_file(monkeypatch):
    monkeypatch.setattr(module, "LISTED", 3)
    report = ReadingReport()
    for number in range(5):
        report.add(f"a.jsonl:{number}: bad", "a.jsonl")
    report.add("b.txt is binary", "b.txt")
    assert report.skipped == 6
    assert report.problems == [
        "a.jsonl:0: bad", "a.jsonl:1: bad", "a.jsonl:2: bad", "a.jsonl: 2 more", "b.txt: 1 more",
    ]  # fmt: skip


def test_a_note_names_the_files_that_share_it():
    report = ReadingReport()
    report.note("read so", "a.csv")
    report.note("read so", "a.csv")
    report.note("read so", "b.csv")
    report.note("read otherwise", "c.csv")
    report.empty_files = 2
    assert report.notes == [
        "a.csv and 1 more: read so", "c.csv: read otherwise", "2 empty files were passed over",
    ]  # fmt: skip


def test_what_it_tells_can_be_written_and_shown():
    report = ReadingReport()
    report.add("bad\udcff\x1b[2J name", "x")
    report.note("so\n", "\udcff.csv")
    assert report.problems == ["bad\\udcff\\x1b[2J name"]
    "".join(report.problems + report.notes).encode()


def test_numbers_agree_with_their_verb():
    assert were(1) == "1 row or file was"
    assert were(1200, "file", "files") == "1,200 files were"
