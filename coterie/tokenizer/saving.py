"""Tokenizers on disk: one JSON file that is complete by itself."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field

from coterie.foundation.errors import TokenizerError, nearest
from coterie.foundation.files import write_text_atomic
from coterie.foundation.printable import printable
from coterie.foundation.records import read_json, validated
from coterie.foundation.settings import Settings
from coterie.tokenizer.characters import CharacterTokenizer
from coterie.tokenizer.interface import Tokenizer
from coterie.tokenizer.published import TiktokenTokenizer
from coterie.tokenizer.raw_bytes import ByteTokenizer
from coterie.tokenizer.special import END_OF_TEXT, UNKNOWN
from coterie.tokenizer.subword import SubwordTokenizer

FILE_NAME = "tokenizer.json"
_FORMAT = "coterie.tokenizer/1"


def _lists(*wanted: str) -> AfterValidator:
    """Return a validator of special tokens, among which some must be."""

    def check(tokens: list[str]) -> list[str]:
        for token in wanted:
            if token not in tokens:
                raise ValueError(f"“{token}” is missing")
        return tokens

    return AfterValidator(check)


def _distinct(alphabet: str) -> str:
    if len(set(alphabet)) < len(alphabet):
        raise ValueError("a character is listed twice")
    return alphabet


class _Description(Settings):
    """What a file of Coterie's own holds."""

    model_config = ConfigDict(strict=True)

    format: Literal["coterie.tokenizer/1"] = _FORMAT


class _Characters(_Description):
    kind: Literal["characters"]
    alphabet: Annotated[str, AfterValidator(_distinct)]
    special_tokens: Annotated[list[str], _lists(END_OF_TEXT, UNKNOWN)]


class _Bytes(_Description):
    kind: Literal["bytes"]
    special_tokens: Annotated[list[str], _lists(END_OF_TEXT)]


class _Published(_Description):
    kind: Literal["tiktoken"]
    encoding: str
    table_sha256: str
    extra_special_tokens: list[str]


class _Pieces(_Description):
    kind: Literal["pieces"]
    ends: list[str] = Field(min_length=1)
    begin: str | None
    chat_template: str | None
    close: str | None = None
    eos: str | None = None
    rows: int | None = Field(default=None, ge=1)
    config: dict[str, Any] = Field(default_factory=dict)
    rules: dict[str, Any]


_KINDS = {
    CharacterTokenizer.kind: (CharacterTokenizer, _Characters),
    ByteTokenizer.kind: (ByteTokenizer, _Bytes),
    TiktokenTokenizer.kind: (TiktokenTokenizer, _Published),
    SubwordTokenizer.kind: (SubwordTokenizer, _Pieces),
}


def save_tokenizer(tokenizer: Tokenizer, path: Path | str) -> None:
    """Write a tokenizer as one JSON file, atomically.

    Tokenizers of the `tokenizers` library become a plain tokenizer.json where that says it all.

    Raises:
        UserError: the disk is full or not writable.
    """
    description = tokenizer.to_json()
    if "kind" in description:
        description = {"format": _FORMAT, **description}
    write_text_atomic(path, json.dumps(description, indent=1, ensure_ascii=False) + "\n")


def load_tokenizer(path: Path | str) -> Tokenizer:
    """Read a tokenizer that `save_tokenizer` wrote, or any tokenizer.json.

    Args:
        path: the file, or a folder that holds a `tokenizer.json`.

    Raises:
        TokenizerError: there is no such file, or it holds no tokenizer.
    """
    file = tokenizer_path(path)
    description = read_json(file, TokenizerError)
    if not isinstance(description, dict):
        raise TokenizerError(f"{file} holds no tokenizer (a JSON object was expected).")
    try:
        return tokenizer_from_json(description)
    except TokenizerError as error:
        raise TokenizerError(f"{file}: {error.message}", hint=error.hint) from error


def tokenizer_from_json(description: dict[str, Any]) -> Tokenizer:
    """Return the tokenizer of a description, Coterie's own or that of a tokenizer.json.

    Raises:
        TokenizerError: it is not a description of a tokenizer, or an unreadable one.
    """
    if "model" in description:
        return SubwordTokenizer.from_json(description)
    kind = description.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        kind = printable(repr(kind)[:40], keep="")
        raise TokenizerError(
            f"This is not a description of a tokenizer (kind {kind}); "
            f"{nearest(kind, _KINDS)}, or a tokenizer.json with a “model”."
        )
    form = description.get("format", _FORMAT)
    if isinstance(form, str) and form != _FORMAT:
        raise TokenizerError(
            f"The tokenizer has the format “{printable(form[:40], keep='')}”; this version of "
            f"Coterie reads “{_FORMAT}”.",
            hint="Update Coterie.",
        )
    made, model = _KINDS[kind]
    validated(model, description, f"The description of a “{kind}” tokenizer", TokenizerError)
    return made.from_json(description)


def tokenizer_path(path: Path | str) -> Path:
    """Return the file that a path to a tokenizer means; a folder means its `tokenizer.json`.

    Raises:
        TokenizerError: there is none.
    """
    path = Path(path)
    file = path / FILE_NAME if path.is_dir() else path
    if not file.is_file():
        raise TokenizerError(f"There is no tokenizer at {file}.")
    return file
