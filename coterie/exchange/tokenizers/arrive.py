"""Tokenizers from elsewhere: rules from a tokenizer.json, conventions from the files beside it.

A tokenizer.json says how text becomes numbers but not which token ends a text. That stands in
tokenizer_config.json, special_tokens_map.json, generation_config.json and config.json, wherever the
model's makers put it; a model may have several such tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tokenizers

from coterie.foundation.errors import TokenizerError
from coterie.tokenizer.interface import Tokenizer
from coterie.tokenizer.pieces import Conventions, PieceTokenizer, read_rules
from coterie.tokenizer.saving import load_tokenizer, tokenizer_path
from coterie.tokenizer.special import END_OF_TEXT


def from_huggingface(path: Path | str) -> Tokenizer:
    """Read the tokenizer of a model from elsewhere.

    Args:
        path: a folder with a tokenizer.json, or that file; what stands beside it is read as well.

    Raises:
        TokenizerError: there is no tokenizer.json, it is damaged, or nothing says which token ends
            a text.
    """
    file = _file(Path(path))
    description = _read(file)
    if "model" not in description:
        return load_tokenizer(file)  # our own, or the complaint about what it is
    beside = {name: _read(file.with_name(name)) for name in _BESIDE}
    try:
        rules = read_rules(description)
        return PieceTokenizer(rules, conventions=_conventions(rules, beside, file))
    except TokenizerError as error:
        raise TokenizerError(f"{file}: {error.message}", hint=error.hint) from error


_BESIDE = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "config.json",
)


def _file(path: Path) -> Path:
    if path.is_dir() and not (path / "tokenizer.json").exists():
        other = [name for name in ("tokenizer.model", "vocab.json") if (path / name).exists()]
        if other:
            raise TokenizerError(
                f"{path} holds its tokenizer as {other[0]}, without a tokenizer.json.",
                hint="Convert it once: transformers.AutoTokenizer.from_pretrained(FOLDER)"
                ".save_pretrained(FOLDER) writes a tokenizer.json.",
            )
    return tokenizer_path(path)


def _read(file: Path) -> dict[str, Any]:
    """Return the object in a JSON file; nothing where there is no file."""
    if not file.exists():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TokenizerError(f"{file} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise TokenizerError(f"{file} does not hold a JSON object.")
    return content


def _conventions(
    rules: tokenizers.Tokenizer, beside: dict[str, dict[str, Any]], file: Path
) -> Conventions:
    said = [*_named(rules, beside, "eos_token"), *_numbered(rules, beside, "eos_token_id")]
    added = {token.content for token in rules.get_added_tokens_decoder().values()}
    ends = unique([*([END_OF_TEXT] if END_OF_TEXT in added else []), *said])
    if not ends:
        raise TokenizerError(
            "nothing says which token ends a text.",
            hint='Put a tokenizer_config.json beside it that holds {"eos_token": "…"}.',
        )
    return Conventions(ends, _begin(rules, beside), _chat_template(beside, file))


def unique(tokens: Iterable[str]) -> tuple[str, ...]:
    """Return the tokens without repetition, in order."""
    return tuple(dict.fromkeys(tokens))


def _named(
    rules: tokenizers.Tokenizer, beside: dict[str, dict[str, Any]], key: str
) -> Iterable[str]:
    """Yield the tokens that the files name by their text."""
    for content in beside.values():
        token = content.get(key)
        text = token.get("content") if isinstance(token, dict) else token
        if isinstance(text, str) and rules.token_to_id(text) is not None:
            yield text


def _numbered(
    rules: tokenizers.Tokenizer, beside: dict[str, dict[str, Any]], key: str
) -> Iterable[str]:
    """Yield the tokens that the files name by number; there may be several."""
    for content in beside.values():
        numbers = content.get(key)
        for number in numbers if isinstance(numbers, list) else [numbers]:
            text = rules.id_to_token(number) if isinstance(number, int) and number >= 0 else None
            if text is not None:
                yield text


def _begin(rules: tokenizers.Tokenizer, beside: dict[str, dict[str, Any]]) -> str | None:
    """Return the token that the rules, or the files' word, put before every text."""
    named = next(iter(_named(rules, beside, "bos_token")), None)
    first = rules.encode("", add_special_tokens=True).ids[:1]
    put_first = bool(first) and rules.id_to_token(first[0]) == named
    return named if put_first or beside["tokenizer_config.json"].get("add_bos_token") else None


def _chat_template(beside: dict[str, dict[str, Any]], file: Path) -> str | None:
    template = file.with_name("chat_template.jinja")
    if template.is_file():
        return template.read_text(encoding="utf-8")
    said = beside["tokenizer_config.json"].get("chat_template")
    if isinstance(said, list):  # several, by name
        said = next((each.get("template") for each in said if each.get("name") == "default"), None)
    return said if isinstance(said, str) else None
