"""Streams: what is held out, where documents stand, and sources that are not what they were."""

from __future__ import annotations

import os

import pytest

from coterie.data import DataSettings, Sources
from coterie.data.streaming import (
    Head,
    Place,
    StreamedTexts,
    Streaming,
    held_out_by_hash,
    identity_of,
    refuse_other,
)
from coterie.foundation.errors import DataError, SettingsError
from coterie.foundation.layers import Layer, load_settings


def streamed(*inputs, fraction=0.2, **options):
    return StreamedTexts(Sources(inputs, **options), held_out_by_hash(fraction), seed=0)


def after(texts, place=None, told=None):
    return list(texts.after(place or Place(), (told if told is not None else []).append))


def test_a_share_of_documents_is_held_out_wherever_they_stand(tmp_path, edu):
    texts = streamed(edu(tmp_path / "edu", documents=200))
    read = [document.text for _, document in after(texts)]
    every = [document.text for document in texts]
    assert len(every) == 200
    assert 0.7 < len(read) / len(every) < 0.9
    twice = tmp_path / "twice.txt"
    twice.write_text(next(iter(set(every) - set(read))))
    assert not after(streamed(twice))  # a copy of what is held out is held out


def test_from_any_place_on_come_the_documents_from_there(tmp_path, edu):
    (tmp_path / "rows.jsonl").write_text("".join(f'{{"text": "row {n}"}}\n' for n in range(9)))
    texts, told = streamed(edu(tmp_path / "edu"), tmp_path / "rows.jsonl"), []
    whole = after(texts)
    assert len({place for place, _ in whole}) == len(whole)
    assert {place.section for place, _ in whole} == {0, 1, 2, 3, 4}  # row groups
    for number in range(0, len(whole), 5):
        assert after(texts, whole[number][0], told) == whole[number:]
    assert any("first" in said and "rows.jsonl" in said for said in told)


def test_a_row_group_is_read_without_those_before_it(tmp_path, monkeypatch, edu):
    from coterie.data import parquet as reader

    texts, read = streamed(edu(tmp_path / "edu"), fraction=0), []
    group = reader._group
    monkeypatch.setattr(
        reader, "_group", lambda path, file, number, *rest: read.append(number)
        or group(path, file, number, *rest)
    )  # fmt: skip
    after(texts, Place(1, 3, 0))
    assert read == [3, 4]


def test_a_long_text_comes_as_several_documents_cut_between_words(tmp_path, monkeypatch):
    from coterie.data import text

    monkeypatch.setattr(text, "PIECE", 100)
    words = "".join(f"word{n} " for n in range(100))
    (tmp_path / "long.txt").write_text(words)
    documents = [document for _, document in after(streamed(tmp_path / "long.txt", fraction=0))]
    assert len(documents) > 5
    assert not any(document.continued for document in documents)
    assert "".join(document.text for document in documents) == words
    assert all(document.text.endswith((" ", *"0123456789")) for document in documents)


def test_the_head_ends_with_the_document_that_fills_it(tmp_path, edu):
    texts = streamed(edu(tmp_path / "edu"))
    head = list(Head(texts, 500))
    assert sum(len(d.text) for d in head[:-1]) < 500 <= sum(len(d.text) for d in head)
    assert head == list(texts)[: len(head)]


@pytest.mark.parametrize("change", ["longer", "other", "gone", "new"])
def test_another_source_is_refused_by_name(tmp_path, change, edu):
    folder = edu(tmp_path / "edu")
    sources = Sources(folder)
    known, identity = sources.known(), identity_of(sources)
    refuse_other(known, Sources(folder))
    assert identity_of(Sources(folder)) == identity
    last = sorted(folder.iterdir())[1]
    if change == "gone":
        last.unlink()
    elif change == "new":
        (folder / "999.txt").write_text("one more")
        last = folder / "999.txt"
    else:
        content = last.read_bytes()
        first = bytes([content[0] ^ 1])
        last.write_bytes(content + b"x" if change == "longer" else first + content[1:])
    with pytest.raises(DataError, match=last.name):
        refuse_other(known, Sources(folder))
    assert identity_of(Sources(folder)) != identity


def test_files_that_only_moved_are_the_same(tmp_path, edu):
    folder = edu(tmp_path / "edu")
    known, identity = Sources(folder).known(), identity_of(Sources(folder))
    os.rename(folder, tmp_path / "elsewhere")
    refuse_other(known, Sources(tmp_path / "elsewhere"))
    assert identity_of(Sources(tmp_path / "elsewhere")) == identity


def test_a_stream_may_be_asked_for_in_a_word():
    def data(**values):
        return load_settings(DataSettings, [Layer("test", values)]).settings

    assert data(stream=True).stream == Streaming()
    assert data(stream=False).stream is None
    assert data(stream={"block": 5}).stream == Streaming(block=5)
    for other in ({"store": "s"}, {"mix": "equal"}, {"split": "tail"}):
        with pytest.raises(SettingsError, match=r"data\.|stream"):
            data(stream=True, **other)
