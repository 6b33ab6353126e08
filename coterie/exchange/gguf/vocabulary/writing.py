"""Describing a tokenizer in the values of a GGUF file."""

from typing import Any

from coterie.exchange.gguf.pretokenizers import name_of
from coterie.exchange.gguf.vocabulary import keys
from coterie.exchange.imported import ExchangeError
from coterie.exchange.tokenizers import to_huggingface
from coterie.exchange.tokenizers.ranks import spelled
from coterie.foundation.printable import printable
from coterie.tokenizer.interface import Tokenizer
from coterie.tokenizer.subword import SubwordTokenizer

# The list of merges must not be empty; these two bytes never occur in UTF-8, and their pair is
# not a token.
_NO_MERGES = " ".join((spelled(b"\xff"), spelled(b"\xfe")))


def write_vocabulary(tokenizer: Tokenizer, rows: int) -> dict[str, Any]:
    """Return what a file says of a tokenizer.

    Args:
        tokenizer: byte-level BPE, or bytes.
        rows: of the model's embedding; rows without a token are padded.

    Raises:
        ExchangeError: the tokenizer is of a kind that has no home in GGUF, or larger than the
            model.
    """
    if tokenizer.vocab_size > rows:
        raise ExchangeError(
            f"The tokenizer has {tokenizer.vocab_size:,} tokens, the model only {rows:,}."
        )
    description = to_huggingface(tokenizer)
    pretokenizer = _pretokenizer(tokenizer, description)
    _refuse_flags(description)
    pieces, kinds = _pieces(description, rows)
    merges = [_merge(each) for each in description["model"]["merges"]] or [_NO_MERGES]
    values = {
        "model": "gpt2",
        "pre": pretokenizer,
        "tokens": pieces,
        "token_type": kinds,
        "merges": merges,
        "bos_token_id": tokenizer.start_of_text,
        **_ends(tokenizer),
        "add_bos_token": tokenizer.begin_of_text is not None,
        "add_eos_token": tokenizer.close_of_text is not None,
        "add_space_prefix": False,
        **_others(tokenizer, pieces),
    }
    said = {f"{keys.PREFIX}{name}": value for name, value in values.items()}
    return said | _templates(tokenizer)


def _ends(tokenizer: Tokenizer) -> dict[str, int]:
    """Return the ids of tokens that end a text; one that is appended to every text comes first."""
    first = tokenizer.named_end if tokenizer.close_of_text is None else tokenizer.close_of_text
    ends = [first, *sorted(tokenizer.ends - {first})]
    if len(ends) > len(keys.ENDS):
        named = ", ".join(tokenizer.name_of(end) for end in ends)
        raise ExchangeError(
            f"{len(ends)} tokens end a text of this model ({named}); GGUF names {len(keys.ENDS)} "
            "at most.",
            hint="Export as hf, which names any number.",
        )
    return dict(zip(keys.ENDS, ends, strict=False))


def _others(tokenizer: Tokenizer, pieces: list[str]) -> dict[str, int]:
    """Return the ids of further tokens that the tokenizer's configuration names."""
    config = tokenizer.conventions.config if isinstance(tokenizer, SubwordTokenizer) else {}
    found = {}
    for name, key in keys.NAMED.items():
        said = config.get(name)
        text = said.get("content") if isinstance(said, dict) else said
        if text in pieces:
            found[key] = pieces.index(text)
    return found


def _templates(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the chat templates, the default one and those by name."""
    said: dict[str, Any] = {}
    if tokenizer.chat_template:
        said[keys.TEMPLATE] = tokenizer.chat_template
    config = tokenizer.conventions.config if isinstance(tokenizer, SubwordTokenizer) else {}
    named = {each["name"]: each["template"] for each in config.get("chat_template", [])}
    others = {name: text for name, text in named.items() if name != "default"}
    if others:
        said |= {keys.TEMPLATES: list(others)}
        said |= {f"{keys.TEMPLATE}.{name}": text for name, text in others.items()}
    return said


def _refuse_flags(description: dict[str, Any]) -> None:
    """Refuse flags of added tokens that GGUF cannot express."""
    for token in description["added_tokens"]:
        flags = [flag for flag in ("lstrip", "rstrip", "single_word") if token[flag]]
        if flags:
            raise ExchangeError(
                f"The added token “{printable(token['content'], keep='')}” has the flag "
                f"{flags[0]}, which GGUF cannot say.",
                hint="Export as hf, which keeps it.",
            )


def _pretokenizer(tokenizer: Tokenizer, description: dict[str, Any]) -> str:
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
            "The tokenizer's pretokenizer has no name in GGUF.",
            hint="Export as hf, which holds every tokenizer.",
        )
    return name


def _pieces(description: dict[str, Any], rows: int) -> tuple[list[str], list[int]]:
    """Return the text and the type of every row of the embedding."""
    pieces = [f"[PAD{number}]" for number in range(rows)]
    kinds = [keys.UNUSED] * rows
    for piece, number in description["model"]["vocab"].items():
        if number < rows:
            pieces[number], kinds[number] = piece, keys.NORMAL
    for token in description["added_tokens"]:
        if token["id"] >= rows:  # a model without a row for it cannot use it
            continue
        pieces[token["id"]] = token["content"]
        kinds[token["id"]] = keys.CONTROL if token["special"] else keys.USER_DEFINED
    return pieces, kinds


def _merge(pair: str | list[str]) -> str:
    return pair if isinstance(pair, str) else " ".join(pair)
