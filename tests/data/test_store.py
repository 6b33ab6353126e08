"""From documents to a store and back, exactly; whole or not at all."""

from __future__ import annotations

import json
import os
import signal
import time
import tracemalloc

import numpy as np
import pytest

from coterie.data import (
    BatchLoader,
    Document,
    Sources,
    evaluation_batches,
    open_store,
    prepare,
    verify_store,
)
from coterie.data import encode as encode_module
from coterie.data.store import is_store
from coterie.foundation.errors import DataError, StoreError, UserError
from coterie.tokenizer.characters import Characters
from coterie.tokenizer.interface import Tokenizer
from coterie.tokenizer.raw_bytes import Bytes
from coterie.tokenizer.settings import parse_tokenizer

LINES = "The quality of mercy is not strain'd,\nIt droppeth as the gentle rain from heaven\n"
DOCUMENTS = [Document(f"d{i}", LINES * (i + 1) + f"Exit {i}") for i in range(12)]
BYTES = Bytes().build()


def documents_in(store, split):
    """Return the texts of a split's documents, separators removed."""
    tokens, starts = store.tokens(split), store.document_starts(split).tolist()
    texts = []
    for number, start in enumerate(starts):
        last = number + 1 == len(starts)
        ids = tokens[start : len(tokens) if last else starts[number + 1]]
        if not last:
            assert ids[-1] == store.tokenizer.end_of_text
            ids = ids[:-1]
        texts.append(store.tokenizer.decode(ids))
    return texts


@pytest.mark.parametrize(
    ("name", "workers"),
    [("characters", 1), ("bytes", 3), ("bpe:400", 2), ("gpt2", 1), ("gpt2", 3), ("o200k_base", 2)],
)
def test_every_document_comes_back(tmp_path, name, workers):
    tokenizer = parse_tokenizer(name).build(d.text for d in DOCUMENTS)
    store = prepare(DOCUMENTS, tmp_path / "s", tokenizer, valid_fraction=0.25, workers=workers)
    train, valid = documents_in(store, "train"), documents_in(store, "valid")
    assert sorted(train + valid) == sorted(document.text for document in DOCUMENTS)
    for split, texts in (("train", train), ("valid", valid)):
        record = store.manifest.splits[split]
        assert record.documents == len(texts)
        assert record.characters == sum(map(len, texts))
        assert record.bytes == sum(len(text.encode()) for text in texts)
        assert record.tokens == len(store.tokens(split))
    assert store.manifest.dtype == ("uint32" if name == "o200k_base" else "uint16")
    assert open_store(tmp_path / "s").tokenizer == tokenizer
    assert verify_store(tmp_path / "s") == []


def test_one_file_of_characters_is_split_as_in_the_published_recipe(tmp_path):
    text = "".join(chr(97 + i % 26) for i in range(11_153))
    tokenizer = Characters().build([text])
    store = prepare([Document("file", text)], tmp_path / "s", tokenizer)
    cut = int(len(text) * 0.9)
    assert store.tokenizer.decode(store.tokens("train")[:]) == text[:cut]
    assert store.tokenizer.decode(store.tokens("valid")[:]) == text[cut:]  # and no separator
    assert store.manifest.split.asked == "documents"
    assert store.manifest.split.used == "tail"
    assert "only one document" in store.manifest.split.note


@pytest.mark.parametrize("name", ["characters", "bytes", "bpe:300", "gpt2"])
def test_cutting_long_documents_changes_no_token(tmp_path, monkeypatch, name):
    monkeypatch.setattr(encode_module, "CUT_AT", 64)
    text = LINES * 40 + "  \n\n\t indented\n" * 9 + LINES * 10
    pieces = [Document("d", text[at : at + 50], continued=at > 0) for at in range(0, len(text), 50)]
    tokenizer = parse_tokenizer(name).build([text])
    store = prepare(pieces, tmp_path / "s", tokenizer, valid_fraction=0)
    assert store.tokens("train")[:].tolist() == tokenizer.encode(text)
    assert len(store.document_starts("train")) == 1


def test_long_documents_are_cut_at_all(monkeypatch):
    monkeypatch.setattr(encode_module, "CUT_AT", 64)
    cut = list(
        encode_module.cut_pieces([encode_module.Piece("train", Document("d", LINES * 40))], BYTES)
    )
    assert len(cut) > 20
    assert [piece.starts for piece in cut] == [True] + [False] * (len(cut) - 1)


def test_documents_that_must_not_be_cut_are_encoded_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(encode_module, "CUT_AT", 64)
    monkeypatch.setattr(Tokenizer, "cut", lambda *_: None)
    tokenizer = parse_tokenizer("gpt2").build()
    store = prepare([Document("d", LINES * 9)], tmp_path / "s", tokenizer, valid_fraction=0)
    assert store.tokens("train")[:].tolist() == tokenizer.encode(LINES * 9)


@pytest.mark.parametrize("shard_tokens", [1, 7, 100, 1 << 20])
def test_shards_read_as_one_row(tmp_path, shard_tokens):
    text = LINES if shard_tokens > 1 else LINES[:30]
    store = prepare(
        [Document("d", text)], tmp_path / "s", BYTES, valid_fraction=0, shard_tokens=shard_tokens
    )
    tokens = store.tokens("train")
    expected = np.frombuffer(text.encode(), dtype=np.uint8)
    assert len(tokens) == len(expected)
    assert tokens[:].tolist() == expected.tolist()
    for part in (slice(3, 20), slice(-5, None), slice(9, 9), slice(20, 3), slice(1, 25, 4),
                 slice(None, None, -1), slice(20, 2, -3), slice(5, 10**9)):  # fmt: skip
        assert tokens[part].tolist() == expected[part].tolist(), part
    assert [tokens[i] for i in (0, 7, -1)] == [expected[i] for i in (0, 7, -1)]
    for outside in (len(tokens), -len(tokens) - 1):
        with pytest.raises(IndexError):
            tokens[outside]
    starts = np.array([0, len(expected) - 3, 5])
    for length in (1, 3, 9):  # the last goes round
        wanted = [np.resize(np.roll(expected, -start), length).tolist() for start in starts]
        assert tokens.gather(starts, length).tolist() == wanted
    ring = np.empty(2 * len(expected) + 5, dtype=np.int64)
    tokens.fill(ring, 4)
    assert ring.tolist() == np.resize(np.roll(expected, -4), len(ring)).tolist()


def test_tokens_know_where_their_documents_begin(tmp_path):
    store = prepare(DOCUMENTS, tmp_path / "s", BYTES, valid_fraction=0.25, shard_tokens=100)
    for split in ("train", "valid"):
        starts = open_store(tmp_path / "s").tokens(split).starts
        assert starts.dtype == np.int64
        assert starts.tolist() == store.document_starts(split).tolist()
    empty = prepare(DOCUMENTS, tmp_path / "empty", BYTES, valid_fraction=0)
    assert empty.tokens("valid").starts.tolist() == []


@pytest.mark.parametrize("change", ["longer", "falling", "shorter", "gone"])
def test_document_offsets_that_changed_after_opening_are_refused(tmp_path, change):
    prepare(DOCUMENTS, tmp_path / "s", BYTES, valid_fraction=0.25)
    store, file = open_store(tmp_path / "s"), tmp_path / "s" / "train-documents.bin"
    store.check_content()
    offsets = np.fromfile(file, "<u8")
    offsets[1] = {"longer": offsets[1] + 1, "falling": 0}.get(change, offsets[1])
    file.write_bytes(offsets.tobytes()[: -8 if change == "shorter" else None])
    if change == "gone":
        file.unlink()
    with pytest.raises(StoreError, match="damaged"):
        store.check_content()
    if change != "longer":  # which a checksum alone can tell
        with pytest.raises(StoreError, match="damaged"):
            _ = store.tokens("train").starts


def test_reading_inside_a_shard_copies_nothing(tmp_path):
    store = prepare(DOCUMENTS, tmp_path / "s", BYTES)
    assert np.shares_memory(store.tokens("train")[10:20], store.tokens("train")[0:40])
    assert not store.tokens("train")[10:20].flags.writeable


def test_special_tokens_in_the_text_and_unknown_characters_are_counted(tmp_path):
    tokenizer = Characters(special_tokens=("<X>",)).build(["abc"])
    store = prepare([Document("d", "ab<X>zz")], tmp_path / "s", tokenizer, valid_fraction=0)
    expected = [0, 1, tokenizer.special_tokens["<X>"], *[tokenizer.unknown_token] * 2]
    assert store.tokens("train")[:].tolist() == expected
    assert store.manifest.splits["train"].unknown == 2
    assert store.manifest.splits["train"].characters == 7


def test_equal_input_gives_equal_bytes(tmp_path):
    for name, workers in (("a", 1), ("b", 4)):
        prepare(iter(DOCUMENTS), tmp_path / name, BYTES, workers=workers)
    files = sorted(file.name for file in (tmp_path / "a").iterdir())
    assert files == sorted(file.name for file in (tmp_path / "b").iterdir())
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_what_was_left_out_is_written_down(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "good"}\n{\n{"text": "fine"}\n')
    sources = Sources([tmp_path / "a.jsonl"], on_error="skip")
    store = prepare(sources, tmp_path / "s", BYTES, valid_fraction=0)
    assert store.manifest.skipped == 1
    assert "a.jsonl:2" in store.manifest.problems[0]


def test_progress_is_told(tmp_path):
    told = []
    prepare(DOCUMENTS, tmp_path / "s", BYTES, progress=lambda *news: told.append(news))
    total = sum(len(document.text) for document in DOCUMENTS)
    assert told[0][0] == "reading"
    assert told[-1] == ("tokenizing", total, total)


def test_an_existing_folder_is_kept_unless_told_otherwise(tmp_path):
    first = prepare(DOCUMENTS, tmp_path / "s", BYTES)
    with pytest.raises(UserError, match="exists already"):
        prepare(DOCUMENTS[:3], tmp_path / "s", BYTES)
    assert verify_store(tmp_path / "s") == []
    second = prepare(DOCUMENTS[:3], tmp_path / "s", BYTES, replace=True)
    assert second.fingerprint != first.fingerprint
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(DataError, match="not a token store"):
        prepare(DOCUMENTS, tmp_path / "mine", BYTES, replace=True)
    assert (tmp_path / "mine" / "letter.txt").exists()


class Broken(list):
    """Documents that fail while they are encoded, in the second reading."""

    def __init__(self, error):
        super().__init__(DOCUMENTS)
        self.error, self.readings = error, 0

    def __iter__(self):
        self.readings += 1
        yield from super().__iter__()
        if self.readings == 2 and self.error:
            raise self.error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "full disk"), DataError("x")])
def test_an_interruption_leaves_nothing_behind(tmp_path, error):
    with pytest.raises((KeyboardInterrupt, UserError)):
        prepare(Broken(error), tmp_path / "s", BYTES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12 warns of any fork
def test_a_kill_never_leaves_what_looks_like_a_store(tmp_path):
    reader, writer = os.pipe()

    class Slow(Broken):
        def __iter__(self):
            yield from super().__iter__()
            if self.readings == 2:
                os.write(writer, b"x")
                time.sleep(60)

    child = os.fork()
    if child == 0:
        prepare(Slow(None), tmp_path / "s", BYTES, workers=1)
        os._exit(1)  # never reached
    assert os.read(reader, 1) == b"x"  # everything is read, the end is not written
    os.kill(child, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert not (tmp_path / "s").exists()
    assert not any(is_store(path) for path in tmp_path.iterdir())
    assert verify_store(prepare(DOCUMENTS, tmp_path / "s", BYTES).path) == []


class Many:
    """One document of many megabytes that is never in memory whole."""

    def __init__(self, pieces):
        self.pieces = pieces

    def __iter__(self):
        for number in range(self.pieces):
            yield Document("big", str(number) + LINES * 12_000, continued=number > 0)


def test_memory_does_not_grow_with_the_input(tmp_path):
    peaks = []
    for pieces in (12, 48):
        tracemalloc.start()
        try:
            prepare(Many(pieces), tmp_path / f"{pieces}", BYTES, workers=2)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < 1.25 * peaks[0], peaks


def test_opening_what_is_no_store(tmp_path):
    with pytest.raises(StoreError, match="no token store") as caught:
        open_store(tmp_path / "gone")
    assert "coterie data prepare" in caught.value.hint
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "manifest.json").write_text('{"name": "app"}')
    with pytest.raises(StoreError, match="something else's"):
        open_store(tmp_path / "other")
    (tmp_path / "other" / "manifest.json").write_text('{"format": "coterie.store/9"}')
    with pytest.raises(StoreError, match="does not read"):
        open_store(tmp_path / "other")


def test_another_tokenizer_is_refused(tmp_path):
    prepare(DOCUMENTS, tmp_path / "s", BYTES)
    assert open_store(tmp_path / "s", BYTES).tokenizer == BYTES
    with pytest.raises(StoreError, match="made with another tokenizer"):
        open_store(tmp_path / "s", BYTES.extended(["<X>"]))


@pytest.mark.parametrize("shard_tokens", [200, 1 << 20])
def test_a_token_outside_the_vocabulary_is_refused_when_it_is_read(tmp_path, shard_tokens):
    """An embedding must not be indexed with it, though the shard's checksum may be right."""
    prepare(DOCUMENTS, tmp_path / "s", BYTES, shard_tokens=shard_tokens)
    numbers = np.fromfile(tmp_path / "s" / "train-00000.bin", "<u2")
    numbers[7] = 257
    numbers.tofile(tmp_path / "s" / "train-00000.bin")
    tokens = open_store(tmp_path / "s").tokens("train")
    for read in (lambda: tokens[7], lambda: tokens[:9], lambda: tokens[9:2:-1],
                 lambda: tokens.gather(np.array([20, 3]), 8),
                 lambda: list(evaluation_batches(tokens, 4, 2)),
                 lambda: BatchLoader(tokens, 16, len(tokens) - 16, seed=1).batch(0)):  # fmt: skip
        with pytest.raises(StoreError, match="257, outside the vocabulary of 257") as caught:
            read()
        assert "coterie data verify" in caught.value.hint
    assert len(tokens[8:40]) == len(tokens.gather(np.array([8]), 32)[0]) == 32


def test_there_are_two_splits(tmp_path):
    store = prepare(DOCUMENTS, tmp_path / "s", BYTES, valid_fraction=0)
    assert len(store.tokens("valid")) == len(store.document_starts("valid")) == 0
    assert store.characters_per_token("valid") is None
    assert store.characters_per_token("train") == pytest.approx(1, abs=0.02)
    assert "train" in repr(store)
    with pytest.raises(StoreError, match="did you mean “valid”"):
        store.tokens("validation")


def test_the_manifest_is_readable(tmp_path):
    prepare(DOCUMENTS, tmp_path / "s", BYTES)
    content = json.loads((tmp_path / "s" / "manifest.json").read_text())
    assert content["splits"]["train"]["documents"] > 0


def test_each_document_of_several_sources_keeps_its_own(tmp_path):
    for name, count in (("a", 3), ("b", 9)):
        (tmp_path / name).mkdir()
        for number in range(count):
            (tmp_path / name / f"{number}.txt").write_text(f"{name} {number}, " * (number + 2))
    inputs = [tmp_path / "a", tmp_path / "b"]
    store = prepare(Sources(inputs), tmp_path / "s", BYTES, valid_fraction=0.3)
    assert verify_store(tmp_path / "s") == []
    store = open_store(tmp_path / "s")
    assert store.manifest.sources == tuple(map(str, inputs))
    for split in ("train", "valid"):
        ids, texts = store.document_sources(split), documents_in(store, split)
        assert ["ab"[number] for number in ids] == [text[0] for text in texts]
        record = store.manifest.splits[split]
        assert [each.documents for each in record.sources] == np.bincount(ids, minlength=2).tolist()
        assert sum(each.tokens for each in record.sources) == record.tokens
        rests = np.diff(np.append(store.document_starts(split), record.tokens))
        assert record.sources[1].tokens == rests[ids == 1].sum()
    one = prepare(Sources(inputs[1]), tmp_path / "one", BYTES, valid_fraction=0.3)
    assert not (one.path / "train-sources.bin").exists()
    assert one.document_sources("train").tolist() == [0] * one.manifest.splits["train"].documents
    assert "sources" not in (one.path / "manifest.json").read_text()
    merged = [Document(d.name, d.text) for d in Sources(inputs)]
    assert (
        prepare(merged, tmp_path / "m", BYTES, valid_fraction=0.3).fingerprint == store.fingerprint
    )
