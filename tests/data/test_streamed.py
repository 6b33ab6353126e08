"""Rows of a stream: pure functions of their numbers, from any place, epoch after epoch."""

from __future__ import annotations

import threading
from itertools import islice

import numpy as np
import pytest
import torch

from coterie.batch import IGNORE
from coterie.data import BatchLoader, Sources
from coterie.data.packing import Packing
from coterie.data.packing.isolated import Isolated
from coterie.data.packing.stream import Stream
from coterie.data.packing.whole import Whole
from coterie.data.streamed import StreamedRows
from coterie.data.streaming import Place, StreamedTexts, held_out_by_hash
from coterie.foundation.errors import DataError, TokenizerError
from coterie.tokenizer.settings import Bytes

BYTES = Bytes().build([])


def streamed(*inputs, fraction=0.2, **options):
    return StreamedTexts(Sources(inputs, **options), held_out_by_hash(fraction), seed=0)


@pytest.fixture
def texts(tmp_path, edu):
    return streamed(edu(tmp_path / "edu"))


def stream(texts, packing: Packing | None = None, block=1500, seed=3):
    return StreamedRows(texts, BYTES, packing or Stream(), (16, block), seed)


def read(rows, first, count):
    return rows.rows(first, count).tokens


def epoch_rows(texts):
    rows = stream(texts)
    while rows.position(1 << 40)["epoch"] == 0:
        rows.rows(rows._marks[-1].row, 1)
    rows.close()
    return next(mark.row for mark in rows._marks if mark.epoch == 1)


def test_an_epoch_reads_every_token_once_and_the_next_goes_on(texts):
    told, rows = [], stream(texts)
    count = epoch_rows(texts)
    targets = torch.cat([rows.rows(n, 1).targets for n in range(count)]).flatten()
    found = np.bincount(targets[targets != IGNORE].numpy(), minlength=300)
    text = b"".join(d.text.encode() for _, d in texts.after(Place(), told.append))
    wanted = np.bincount(np.frombuffer(text, dtype=np.uint8), minlength=300)
    blocks = len({mark.block for mark in rows._marks if mark.epoch == 0})
    assert 0 <= wanted.sum() - found[: len(wanted)][:256].sum() <= blocks  # each block's first
    rows.rows(count, 3)
    rows.tell = told.append
    rows.announce()
    assert any("begins anew" in said for said in told)
    rows.close()
    one, two = stream(texts), stream(texts)
    assert not torch.equal(read(one, 0, count), read(two, count, count))  # shuffled otherwise
    one.close(), two.close()


@pytest.mark.parametrize("packing", [Stream(), Isolated(), Whole()], ids=lambda p: p.kind)
def test_going_on_from_anywhere_gives_the_same_rows(texts, packing):
    straight = stream(texts, packing)
    for row in (0, 7, 130, 600, 1100):
        wanted = straight.rows(row, 9)
        position = straight.position(row)
        assert row == 0 or position["block"] > 0 or row == 7
        other = stream(texts, packing)
        other.go_on(position)
        found = other.rows(row, 9)
        assert torch.equal(found.tokens, wanted.tokens)
        assert torch.equal(found.targets, wanted.targets)
        if wanted.documents is not None:
            assert torch.equal(found.documents, wanted.documents)
        other.close()
    straight.close()


def test_rows_before_those_in_memory_are_read_again(texts):
    rows = stream(texts)
    first = read(rows, 0, 5)
    read(rows, 900, 5)
    assert torch.equal(read(rows, 0, 5), first)
    rows.close()


@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_share_one_batch(texts, world):
    def batches(rank, world):
        with BatchLoader(stream(texts), 16, 8, 3, rank=rank, world=world) as loader:
            return torch.stack([b.tokens for b in islice(loader.iterate(2), 40)])

    parts = [batches(rank, world) for rank in range(world)]
    assert torch.equal(torch.cat(parts, dim=1), batches(0, 1))


def test_the_seed_orders_the_rows(texts):
    one, same, other = stream(texts), stream(texts), stream(texts, seed=4)
    assert torch.equal(read(one, 0, 40), read(same, 0, 40))
    assert not torch.equal(read(one, 0, 40), read(other, 0, 40))
    for rows in (one, same, other):
        rows.close()


def test_threads_end_with_the_loader_and_news_is_told(texts):
    told, rows = [], stream(texts)
    rows.tell = told.append
    with BatchLoader(rows, 16, 64, 3) as loader:
        list(islice(loader.iterate(), 12))
        assert "a stream" in loader.reading(12).told
    assert any("Epoch 2 " in said for said in told)
    assert not [t for t in threading.enumerate() if t.name.startswith("coterie-stream")]


def test_text_that_changed_inside_is_refused(tmp_path):
    path = tmp_path / "text.jsonl"
    lines = [f'{{"text": "row {n:06d} {"long " * 30}"}}\n' for n in range(6000)]
    path.write_text("".join(lines))
    rows = stream(streamed(path), block=20_000)
    rows.rows(10_000, 1)
    position = rows.position(10_000)
    rows.close()
    at = position["place"][2] + 3  # no sample of the file reaches there
    lines[at] = lines[at].replace("long", "lost")
    path.write_text("".join(lines))
    other = stream(streamed(path), block=20_000)
    other.go_on(position)
    with pytest.raises(DataError, match=r"text\.jsonl.* not what the stream read before"):
        other.rows(10_000, 1)
    other.close()


def test_a_stream_without_text_says_so(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": ""}\n')
    with pytest.raises(DataError, match="no text to train on"):
        stream(streamed(tmp_path / "rows.jsonl")).rows(0, 1)


def test_documents_that_cannot_be_encoded_stop_it_or_are_left_out(tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "good"}\n{"text": "' + "x" * 5000 + '"}\n{"text": "fine"}\n')
    monkeypatch.setattr(type(BYTES), "longest_word", 1000)
    with pytest.raises(TokenizerError, match=r"rows\.jsonl:2"):
        stream(streamed(path, fraction=0)).rows(0, 1)
    rows = stream(streamed(path, fraction=0, on_error="skip"), block=10_000)
    targets = rows.rows(0, 1).targets[0]
    assert bytes(targets[targets < 256][targets[targets < 256] >= 0].tolist()) == b"oodfine"
    rows.rows(1, 1)
    assert any("1 rows or files were left out" in said for said in rows._news)
    rows.close()


def test_a_mixture_of_a_stream_is_the_stream_alone(texts):
    with BatchLoader(stream(texts), 16, 4, seed=1) as loader:
        found = loader.mixture(100)
        assert found.lengths == {}  # not known before they are read
        assert found.steps[0] == 0
        assert found.steps[-1] == 99
        assert found.shares == {"0": [1.0] * len(found.steps)}
        before = loader.batch(0).tokens
        loader.mixture(100)
        assert torch.equal(loader.batch(0).tokens, before)  # telling it reads nothing
