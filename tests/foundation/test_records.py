"""Damaged records end in one sentence for the reader, whatever the damage is."""

from __future__ import annotations

import contextlib
import os

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel

from coterie.foundation.errors import SettingsError, StoreError, UserError
from coterie.foundation.records import (
    Scalar,
    parse_json,
    parse_yaml,
    read_json,
    read_model,
    read_scalar,
    read_yaml,
    to_yaml,
)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff{}", "utf-8"),
        (b"{", "JSON"),
        (b"", "JSON"),
        (b'{"a": 1, "a": 2}', "“a” is given twice"),
        (b'{"a": NaN}', "NaN"),
        (b"[" * 100_000, "too deeply"),
        (b"[" * 200 + b"]" * 200, "too deeply"),
        (b"9" * 10_000, "JSON"),
    ],
)
def test_json_that_is_refused(content: bytes, words: str):
    with pytest.raises(StoreError, match=words):
        parse_json(content, "manifest.json", StoreError)


def test_json_that_is_read():
    assert parse_json('{"a": [1, 2.5, null, true, "é"]}', "it") == {"a": [1, 2.5, None, True, "é"]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("&a {b: *a}", "an anchor"),
        ("a: *b", "an alias"),
        ("!!timestamp 2020-01-01", "a tag"),
        ("!!python/object:os.system {}", "a tag"),
        ("!!set {a}", "a tag"),
        ("[" * 5_000, "too deeply|not valid"),
        ("[" * 500 + "]" * 500, "too deeply"),
        ("? [a]\n: b", "a key must be"),
        ("a: 1\na: 2", "“a” is given twice"),
        ("9" * 10_000, "YAML"),
        ("a: \x00", "not valid"),
    ],
)
def test_yaml_that_is_refused(text: str, words: str):
    with pytest.raises(SettingsError, match=words):
        parse_yaml(text, "overlay.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2020-99-99", "2020-99-99"),
        ("2020-01-01", "2020-01-01"),
        ("12:30", "12:30"),
        ("on", "on"),
        ("017", "017"),
        ("<<", "<<"),
        ("=", "="),
        ("1e-3", 1e-3),
        ("1_000", 1000),
        ("-5", -5),
        ("0x10", 16),
        ("true", True),
        ("~", None),
    ],
)
def test_yaml_without_traps(text: str, value: object):
    read = parse_yaml(text, "it")
    assert read == value
    assert type(read) is type(value)


@given(st.text(st.characters(exclude_categories=[]), max_size=60))
@example("\ud800")
@example("a" * 150 + "  b" * 200 + " ")
def test_every_text_is_written_so_that_it_is_read_back_equal(text: str):
    value = {"a": [text, {text: text}], "b": text}
    written = to_yaml(value)
    assert parse_yaml(written, "it") == value
    assert parse_yaml(written, "it", written=True) == value


@pytest.mark.parametrize(
    "text",
    ["1e3", "1_000", "0x1", "0o17", "017", "12:30", "yes", "No", "y", "~", "null", "", "2020-01-01",
     "=", "<<", ".inf", ".NaN", "- a", "-", "a: b", "#", "a #b", "&a", "*a", "!x", "@x", "%", "`",
     "|", ">", '"', "'", " a", "a ", "\x85", "\u2028", "\x00", "😀", "? a", "---", "0b1",],
)  # fmt: skip
def test_no_yaml_takes_a_text_for_anything_else(text: str):
    written = to_yaml({"a": text})
    assert yaml.safe_load(written) == parse_yaml(written, "it") == {"a": text}


def test_scalars_know_how_they_were_written():
    read = parse_yaml("{a: 1e3, 2: 0x1F, c: ~, d: '5', e: 12:30, f: True}", "it", written=True)
    assert read == {"a": Scalar(1000.0, "1e3"), "2": Scalar(31, "0x1F"), "c": Scalar(None, "~"),
                    "d": "5", "e": "12:30", "f": Scalar(True, "True")}  # fmt: skip
    assert parse_yaml("9" * 5000, "it", written=True) == "9" * 5000
    assert [read_scalar(each) for each in (" 5 ", "5 # five", "[1]", "&a b", "")] == [
        Scalar(5, "5"), "5 # five", "[1]", "&a b", Scalar(None, "")]  # fmt: skip


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str):
    for parse in (parse_json, parse_yaml):
        with contextlib.suppress(UserError):
            parse(text, "it")


def test_files_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for read in (read_json, read_yaml):
        with pytest.raises(UserError, match="not a regular file"):
            read(tmp_path / "pipe")
        with pytest.raises(UserError, match="not a regular file"):
            read(tmp_path)
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "none")


class _Record(BaseModel, strict=True, extra="forbid"):
    step: int
    files: dict[str, int]


def test_a_record_is_held_to_its_model(tmp_path):
    path = tmp_path / "record.json"
    path.write_text('{"step": null, "files": [], "more": 1}')
    with pytest.raises(StoreError, match=r"record.json is damaged: step: .*; files: .*; more: "):
        read_model(_Record, path, StoreError)
    path.write_text('{"step": 3, "files": {"a": 1}}')
    assert read_model(_Record, path).files == {"a": 1}
