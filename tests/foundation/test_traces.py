"""A trace gives back what was written, says what is damaged, and survives its recorder."""

import numpy as np
import pytest

from coterie.foundation.errors import UserError
from coterie.foundation.traces import TraceHeader, TraceWriter, is_trace, read_trace

HEADER = TraceHeader(model="m", experts=(4, 0), experts_per_token=2, candidates=2, lens=1)
ODD = ["a\x1b[2J", "<b>&", "שלום", "🙂", "\ud800", "x" * 100_000]


def records(count):
    random = np.random.default_rng(0)
    made = np.zeros(count, HEADER.record_type())
    made["token"], made["position"] = random.integers(0, 9, count), np.arange(count)
    made["shares"] = random.random(made["shares"].shape)
    return made


@pytest.fixture
def written(tmp_path):
    made, path = records(40), tmp_path / "a.trace"
    with TraceWriter(path, HEADER) as writer:
        for at in range(40):
            writer.add(made[at : at + 1], [ODD[at] if at < 6 else str(at)], {at: f"word {at}"})
        writer.end("length")
    return path, made


def test_a_trace_gives_back_what_was_written(written):
    path, made = written
    found = read_trace(path)
    assert is_trace(path)
    assert (found.header, found.ending) == (HEADER, "length")
    assert found.records.tobytes() == made.tobytes()
    assert found.texts[:7] == [*ODD, "6"]
    assert [found.word(token) for token in (0, 39, 77)] == ["word 0", "word 39", "#77"]


def test_a_part_is_read_without_the_rest(written):
    path, _ = written
    content = bytearray(path.read_bytes())
    content[-200] ^= 1  # in the last block
    path.write_bytes(content)
    part = read_trace(path, 17, 30)
    assert part.records["position"].tolist() == list(range(16, 32))
    with pytest.raises(UserError, match="after 32 tokens"):
        read_trace(path)


def test_a_killed_recorder_leaves_whole_blocks(written):
    path, made = written
    content = path.read_bytes()
    whole = set()
    for stop in [*range(300, len(content), 211), len(content) - 1]:
        path.write_bytes(content[:stop])
        found = read_trace(path)
        assert found.records.tobytes() == made[: len(found.records)].tobytes()
        assert found.ending is None
        whole.add(len(found.records))
    assert whole == {0, 16, 32, 40}


def test_any_changed_byte_is_named(written):
    path, _ = written
    content = path.read_bytes()
    for at in [*range(80), *range(80, len(content), 997)]:
        path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        with pytest.raises(UserError, match=r"damaged at byte|no trace|another version"):
            read_trace(path)


def test_nothing_is_overwritten_and_strangers_are_refused(written, tmp_path):
    with pytest.raises(UserError, match="overwrites nothing"):
        TraceWriter(written[0], HEADER)
    other = tmp_path / "other"
    other.write_bytes(b"COTERIE TRACE 2\n")
    with pytest.raises(UserError, match=r"another version \(2\)"):
        read_trace(other)
    with pytest.raises(UserError, match="cannot be read"):
        read_trace(tmp_path / "none")
    other.write_bytes(b"COTERIE TRACE 1\n")
    with pytest.raises(UserError, match="ends before it says"):
        read_trace(other)
