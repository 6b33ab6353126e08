"""Tokenizers on disk: one JSON file that is complete by itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from coterie.foundation.errors import TokenizerError, nearest
from coterie.foundation.files import write_text_atomic
from coterie.tokenizer.characters import CharacterTokenizer
from coterie.tokenizer.interface import Tokenizer
from coterie.tokenizer.pieces import PieceTokenizer
from coterie.tokenizer.published import TiktokenTokenizer
from coterie.tokenizer.raw_bytes import ByteTokenizer

FILE_NAME = "tokenizer.json"
_FORMAT = "coterie.tokenizer/1"
_KINDS = {
    kind.kind: kind
    for kind in (CharacterTokenizer, ByteTokenizer, TiktokenTokenizer, PieceTokenizer)
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
    try:
        description = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise TokenizerError(f"{file} is not a JSON file: {error}") from error
    except OSError as error:
        raise TokenizerError(f"{file} cannot be read: {error.strerror}.") from error
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
        return PieceTokenizer.from_json(description)
    kind = description.get("kind")
    if kind not in _KINDS:
        raise TokenizerError(
            f"This is not a description of a tokenizer (kind {kind!r}); "
            f"{nearest(str(kind), _KINDS)}, or a tokenizer.json with a “model”."
        )
    if description.get("format", _FORMAT) != _FORMAT:
        raise TokenizerError(
            f"The tokenizer has the format {description['format']!r}; this version of Coterie "
            f"reads {_FORMAT!r}.",
            hint="Update Coterie.",
        )
    try:
        return _KINDS[kind].from_json(description)
    except (KeyError, TypeError) as error:
        raise TokenizerError(f"The description of a “{kind}” tokenizer lacks {error}.") from error


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
