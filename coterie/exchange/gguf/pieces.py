"""A tokenizer as a GGUF file holds it: a list of pieces with their kinds, and merges."""

from __future__ import annotations

from typing import Any

from coterie.exchange.gguf.vocabulary import CONTROL, NORMAL, UNUSED, USER_DEFINED
from coterie.exchange.gguf.words import name_of
from coterie.exchange.imported import ExchangeError
from coterie.exchange.tokenizers import to_huggingface
from coterie.exchange.tokenizers.ranks import spelled
from coterie.tokenizer.interface import Tokenizer

_BEFORE = "tokenizer.ggml."
# The list of merges must not be empty; these two bytes never meet in UTF-8, and their pair is no
# token.
_NOTHING_TO_MERGE = " ".join((spelled(b"\xff"), spelled(b"\xfe")))


def write_vocabulary(tokenizer: Tokenizer, rows: int) -> dict[str, Any]:
    """Return what a file says of a tokenizer.

    Args:
        tokenizer: byte-level BPE, or bytes.
        rows: of the model's embedding; numbers without a token are filled up.

    Raises:
        ExchangeError: the tokenizer is of a kind that has no home in GGUF, or larger than the
            model.
    """
    if tokenizer.vocab_size > rows:
        raise ExchangeError(
            f"The tokenizer has {tokenizer.vocab_size:,} tokens, the model only {rows:,}."
        )
    description = to_huggingface(tokenizer)
    words = _words(tokenizer, description)
    pieces, kinds = _pieces(description, rows)
    merges = [_merge(each) for each in description["model"]["merges"]] or [_NOTHING_TO_MERGE]
    values = {
        "model": "gpt2",
        "pre": words,
        "tokens": pieces,
        "token_type": kinds,
        "merges": merges,
        "bos_token_id": tokenizer.start_of_text,
        "eos_token_id": tokenizer.end_of_text,
        "add_bos_token": tokenizer.begin_of_text is not None,
        "add_space_prefix": False,
    }
    others = sorted(tokenizer.ends - {tokenizer.end_of_text})
    if others:
        values["eot_token_id"] = others[0]
    said = {f"{_BEFORE}{name}": value for name, value in values.items()}
    if tokenizer.chat_template:
        said["tokenizer.chat_template"] = tokenizer.chat_template
    return said


def _words(tokenizer: Tokenizer, description: dict[str, Any]) -> str:
    model = description["model"]
    byte_level = (description["decoder"] or {}).get("type") == "ByteLevel"
    if model.get("type") != "BPE" or not byte_level:
        raise ExchangeError(
            f"A tokenizer of the kind “{tokenizer.kind}” that does not work on bytes has no home "
            "in GGUF, which holds byte-level BPE.",
            hint="Train with tokenizer=bytes or tokenizer=bpe, or export as hf.",
        )
    name = name_of(description)
    if name is None:
        raise ExchangeError(
            "The tokenizer splits text into words in a way that has no name in GGUF.",
            hint="Export as hf, which holds every tokenizer.",
        )
    return name


def _pieces(description: dict[str, Any], rows: int) -> tuple[list[str], list[int]]:
    """Return the text and the kind of every row of the embedding."""
    pieces = [f"[PAD{number}]" for number in range(rows)]
    kinds = [UNUSED] * rows
    for piece, number in description["model"]["vocab"].items():
        pieces[number], kinds[number] = piece, NORMAL
    for token in description["added_tokens"]:
        pieces[token["id"]] = token["content"]
        kinds[token["id"]] = CONTROL if token["special"] else USER_DEFINED
    return pieces, kinds


def _merge(pair: str | list[str]) -> str:
    return pair if isinstance(pair, str) else " ".join(pair)
