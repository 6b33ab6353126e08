"""What the name of a file says about its content."""

from __future__ import annotations

import pytest

from coterie.data.kinds import kind_of

NAMES = {
    "a.txt": ("text", ()),
    "README": ("text", ()),
    "a.csv.bak": ("text", ()),
    "d.TSV": ("separated", ()),
    "c.tsv.clean.csv": ("separated", ()),
    "A.CSV.GZ": ("separated", ("gzip",)),
    "v1.2.jsonl": ("jsonl", ()),
    "a.NdJson.Zst": ("jsonl", ("zstandard",)),
    "a.csv.bz2.xz": ("separated", ("xz", "bzip2")),
    "book.gz": ("text", ("gzip",)),
    "a.PARQUET": ("parquet", ()),
    ".csv": ("text", ()),
}


@pytest.mark.parametrize("name", NAMES)
def test_the_last_ending_decides_in_any_case(name):
    kind = kind_of(f"some.csv/{name}")
    assert (kind.content, kind.packings) == NAMES[name]


def test_the_ending_is_told_in_lower_case():
    assert kind_of("d.TSV").ending == kind_of("c.csv.tsv.GZ").ending == ".tsv"
    assert kind_of("c.tsv.clean.csv").ending == ".csv"
    assert kind_of("a.md").ending == ""
