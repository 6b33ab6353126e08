"""Damaged records end in one sentence for the reader, whatever the damage is."""

from __future__ import annotations

import contextlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from coterie.foundation.errors import SettingsError, StoreError, UserError
from coterie.foundation.records import (
    parse_json,
    parse_yaml,
    read_json,
    read_model,
    read_yaml,
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
