"""Short names, and files that hold no tokenizer."""

from __future__ import annotations

import json

import pytest

from coterie.foundation.errors import TokenizerError
from coterie.tokenizer.bpe import BPE
from coterie.tokenizer.characters import Characters
from coterie.tokenizer.published import Tiktoken
from coterie.tokenizer.raw_bytes import Bytes
from coterie.tokenizer.saving import load_tokenizer, save_tokenizer
from coterie.tokenizer.settings import TokenizerFile, parse_tokenizer


def test_short_names():
    assert parse_tokenizer("bpe:512", ["<X>"]) == BPE(vocab_size=512, special_tokens=("<X>",))
    assert parse_tokenizer("bpe") == BPE()
    assert parse_tokenizer("characters") == Characters()
    assert parse_tokenizer("bytes") == Bytes()
    assert parse_tokenizer("o200k_base") == Tiktoken(encoding="o200k_base")


def test_a_path_is_a_file(tmp_path):
    save_tokenizer(Bytes().build(), tmp_path / "mine.json")
    chosen = parse_tokenizer(str(tmp_path / "mine.json"))
    assert chosen == TokenizerFile(path=tmp_path / "mine.json")
    assert chosen.build() == Bytes().build()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("gpt-2", "did you mean “gpt2”"),
        ("bpe:many", "not a vocabulary size"),
        ("bpe:12", "greater than or equal to 257"),
        ("missing.json", "no such file"),
    ],
)
def test_wrong_names_are_explained(name, why):
    with pytest.raises(TokenizerError, match=why):
        parse_tokenizer(name)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "not usable JSON"),
        ("[1]", "no tokenizer"),
        ("{}", "not a description"),
        ('{"kind": "character"}', "did you mean “characters”"),
        ('{"kind": "bytes"}', "special_tokens: field required"),
        ('{"kind": ["bytes"]}', "not a description"),
        ('{"kind": "bytes", "special_tokens": []}', "“<|endoftext|>” is missing"),
        ('{"kind": "bytes", "special_tokens": ["<|endoftext|>"], "x": 1}', "x: extra"),
        ('{"kind": "bytes", "special_tokens": "<|endoftext|>"}', "valid list"),
        (
            '{"kind": "characters", "alphabet": "aa", "special_tokens": '
            '["<|endoftext|>", "<|unknown|>"]}',
            "listed twice",
        ),
        (
            '{"kind": "characters", "alphabet": "ab", "special_tokens": ["<|endoftext|>"]}',
            "missing",
        ),
        ('{"kind": "tiktoken", "encoding": 7}', "encoding: input should be a valid string"),
        (
            '{"kind": "pieces", "ends": [], "begin": null, "chat_template": null, "rules": {}}',
            "ends",
        ),
        ("[" * 5000, "nested too deeply"),
        ('{"kind": "bytes", "format": "coterie.tokenizer/9"}', "format"),
        ('{"model": {"type": "BPE"}}', "Not a tokenizer.json"),
    ],
)  # fmt: skip
def test_files_without_a_tokenizer_are_explained(tmp_path, content, why):
    path = tmp_path / "file.json"
    path.write_text(content)
    with pytest.raises(TokenizerError, match=why) as caught:
        load_tokenizer(path)
    assert "file.json" in caught.value.message


def test_binary_and_missing_files_are_explained(tmp_path):
    (tmp_path / "x.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TokenizerError, match="not usable JSON"):
        load_tokenizer(tmp_path / "x.json")
    with pytest.raises(TokenizerError, match="There is no tokenizer"):
        load_tokenizer(tmp_path)


def test_characters_need_text():
    with pytest.raises(TokenizerError, match="no text"):
        Characters().build([""])


def test_unknown_characters_have_a_token_of_their_own():
    kind = Characters().build(["abc"])
    assert kind.vocab_size == 5
    assert kind.encode("azb中") == [0, kind.unknown_token, 1, kind.unknown_token]
    assert kind.decode([0, kind.unknown_token]) == "a<|unknown|>"


def test_saved_files_are_readable_json(tmp_path):
    save_tokenizer(Characters().build(["aé"]), tmp_path / "t.json")
    assert json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))["alphabet"] == "aé"
