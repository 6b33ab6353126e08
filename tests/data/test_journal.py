"""An interrupted preparation goes on from its last whole shard and ends with the same bytes."""

from __future__ import annotations

import json
import os
import signal

import pytest

from coterie.data import Document, prepare, verify_store
from coterie.data import encode as encode_module
from coterie.data.journal import FILE_NAME
from coterie.foundation.errors import UserError
from coterie.tokenizer.raw_bytes import Bytes
from coterie.tokenizer.settings import parse_tokenizer

BYTES = Bytes().build()
DOCUMENTS = [
    Document(f"d{i}", f"Document {i} is not long, in words.\n" * (i % 7 + 1), origin=f"{i // 9}")
    for i in range(40)
]
HOW = {"shard_tokens": 600, "valid_fraction": 0.25}


def content(folder):
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def left(folder):
    return [path for path in folder.iterdir() if ".partial-" in path.name]


@pytest.fixture
def whole(tmp_path):
    return content(prepare(DOCUMENTS, tmp_path / "whole", BYTES, **HOW).path)


class Stopping(list):
    """Documents whose second reading, in which they are encoded, ends before document `at`."""

    def __init__(self, documents, at, stop):
        super().__init__(documents)
        self.at, self.stop, self.readings = at, stop, 0

    def __iter__(self):
        self.readings += 1
        for number, document in enumerate(super().__iter__()):
            if self.readings == 2 and number == self.at:
                self.stop()
            yield document


def killed(tmp_path, documents, at, **how):
    """Prepare in a process that is killed in the middle."""
    child = os.fork()
    if child == 0:
        documents = Stopping(documents, at, lambda: os.kill(os.getpid(), signal.SIGKILL))
        prepare(documents, tmp_path / "s", BYTES, workers=1, **HOW | how)
        os._exit(1)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert not (tmp_path / "s").exists()


@pytest.fixture
def few(monkeypatch):
    """Small jobs, so that shards are written while documents are still read."""
    monkeypatch.setattr(encode_module, "_JOB", 100)
    monkeypatch.setattr(encode_module, "CUT_AT", 64)
    monkeypatch.setattr("coterie.data.journal.sync_file", lambda file: None)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12 warns of any fork
@pytest.mark.parametrize("at", [1, 20, 39])
def test_after_a_kill_it_goes_on_and_ends_with_the_same_bytes(
    tmp_path, whole, few, at, monkeypatch
):
    killed(tmp_path, DOCUMENTS, at)
    (partial,) = left(tmp_path)
    encoded = []
    real = encode_module.count_tokens
    monkeypatch.setattr(
        encode_module, "count_tokens", lambda texts, by: encoded.extend(texts) or real(texts, by)
    )
    assert (
        content(prepare(DOCUMENTS, tmp_path / "s", BYTES, workers=1, resume=True, **HOW).path)
        == whole
    )
    pieces = sum(1 for _ in encode_module.cut_pieces(
        (encode_module.Piece("train", each) for each in DOCUMENTS), BYTES))  # fmt: skip
    assert (len(encoded) < pieces * 0.7) if at > 10 else len(encoded) == pieces
    assert left(tmp_path) == []
    assert verify_store(tmp_path / "s") == []
    assert not partial.exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_without_resuming_what_is_left_is_swept(tmp_path, whole, few):
    killed(tmp_path, DOCUMENTS, 30)
    assert len(left(tmp_path)) == 1
    assert content(prepare(DOCUMENTS, tmp_path / "s", BYTES, **HOW).path) == whole
    assert left(tmp_path) == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "change", ["text", "split", "shards", "origin", "bytes", "journal", "gone"]
)
def test_what_was_left_of_something_else_is_not_taken_up(tmp_path, whole, few, change):
    other = {
        "text": [*DOCUMENTS[:-1], Document("new", "Other.")],
        "origin": [Document(each.name, each.text, origin="a") for each in DOCUMENTS],
    }
    how = {"split": {"valid_fraction": 0.5}, "shards": {"shard_tokens": 500}}
    killed(tmp_path, other.get(change, DOCUMENTS), 30, **how.get(change, {}))
    (partial,) = left(tmp_path)
    shard = partial / "train-00000.bin"
    if change == "bytes":
        shard.write_bytes(bytes(2) + shard.read_bytes()[2:])
    elif change == "journal":
        (partial / FILE_NAME).write_text(json.dumps({"identity": "x"}))
    elif change == "gone":
        shard.unlink()
    assert content(prepare(DOCUMENTS, tmp_path / "s", BYTES, resume=True, **HOW).path) == whole


def test_an_interruption_leaves_what_can_be_resumed_only_if_asked(tmp_path, whole, few):
    def stop():
        raise KeyboardInterrupt

    for resume in (False, True, True):
        with pytest.raises(KeyboardInterrupt):
            prepare(Stopping(DOCUMENTS, 30, stop), tmp_path / "s", BYTES, resume=resume, **HOW)
        assert len(left(tmp_path)) == resume
    with pytest.raises(UserError, match="exists already"):
        prepare(DOCUMENTS, tmp_path / "whole", BYTES, resume=True, **HOW)
    assert content(prepare(DOCUMENTS, tmp_path / "s", BYTES, resume=True, **HOW).path) == whole


@pytest.mark.parametrize("numbers", [(2,), pytest.param((1, 3, 4), marks=pytest.mark.exhaustive)])
def test_any_number_of_processes_writes_the_same_bytes(tmp_path, few, numbers):
    tokenizer = parse_tokenizer("characters").build(each.text for each in DOCUMENTS)
    found = [
        content(prepare(DOCUMENTS, tmp_path / f"{n}", tokenizer, processes=n, **HOW).path)
        for n in (None, *numbers)
    ]
    assert found[1:] == found[:1] * len(numbers)


def test_less_than_one_process_is_refused(tmp_path):
    for wrong in ({"processes": 0}, {"processes": -1}, {"shard_tokens": 0}):
        with pytest.raises(UserError, match="at least"):
            prepare(DOCUMENTS, tmp_path / "s", BYTES, **wrong)
