"""Rows that models are tuned on: the same from JSON lines and from Parquet, in every layout."""

from __future__ import annotations

import json

import pyarrow
import pytest
from pyarrow import parquet

from coterie.align.rows import each_row, marked_of, messages_of, pair_of
from coterie.foundation.errors import DataError

USER, REPLY = {"role": "user", "content": "Who?"}, {"role": "assistant", "content": "I → 🙂."}
SHARED = [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "I → 🙂."}]
WORSE = {"role": "assistant", "content": "None."}

LAYOUTS = {
    "messages": (messages_of, {"messages": [USER, REPLY]}, [USER, REPLY]),
    "conversations": (messages_of, {"conversations": SHARED}, [USER, REPLY]),
    "prompt": (messages_of, {"prompt": "Who?", "completion": "I → 🙂."}, [USER, REPLY]),
    "prompt as messages": (
        messages_of, {"prompt": [USER], "completion": [REPLY]}, [USER, REPLY],
    ),
    "instruction": (messages_of, {"instruction": "Who?", "output": "I → 🙂."}, [USER, REPLY]),
    "pair": (
        pair_of,
        {"prompt": "Who?", "chosen": "I → 🙂.", "rejected": "None."},
        ([USER, REPLY], [USER, WORSE]),
    ),
    "pair as messages": (
        pair_of, {"chosen": [USER, REPLY], "rejected": [USER, WORSE]},
        ([USER, REPLY], [USER, WORSE]),
    ),
    "mark": (
        marked_of, {"prompt": "Who?", "completion": "I → 🙂.", "label": True},
        ([USER, REPLY], True),
    ),
}  # fmt: skip


def written(tmp_path, rows):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    parquet.write_table(
        pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet", row_group_size=2
    )
    return tmp_path / "rows.jsonl", tmp_path / "rows.parquet"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_reads_the_same_from_either_file(tmp_path, layout):
    read, row, expected = LAYOUTS[layout]
    # Rows beyond one group, and a column that only some rows fill: Parquet gives None there.
    rows = [row | {"note": note} for note in ("a", None, "b", None, "c")]
    for path in written(tmp_path, rows):
        assert each_row(path, read) == [expected] * 5


def test_a_bad_row_of_parquet_is_named_with_its_number(tmp_path):
    rows = [{"prompt": "Who?", "completion": "I."}] * 3 + [{"prompt": "Who?", "completion": None}]
    for path, place in zip(written(tmp_path, rows), ("jsonl", "parquet"), strict=True):
        with pytest.raises(DataError, match=rf"rows\.{place}[#:]4: no conversation among"):
            each_row(path, messages_of)


def test_a_damaged_or_empty_parquet_file_is_refused(tmp_path):
    _, path = written(tmp_path, [{"prompt": "Who?", "completion": "I."}] * 3)
    data = bytearray(path.read_bytes())
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"rows\.parquet#1: damaged"):
        each_row(path, messages_of)
    parquet.write_table(pyarrow.table({"prompt": pyarrow.array([], pyarrow.string())}), path)
    with pytest.raises(DataError, match=r"has no rows"):
        each_row(path, messages_of)
    with pytest.raises(DataError, match="neither JSON lines"):
        each_row(path.rename(tmp_path / "rows.csv"), messages_of)
