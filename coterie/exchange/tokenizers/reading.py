"""Foreign tokenizers: rules from a tokenizer.json, conventions from the files beside it.

A tokenizer.json says how text becomes ids but not which token ends a text. That is in
tokenizer_config.json, special_tokens_map.json, generation_config.json or config.json; a model may
have several such tokens. Tokens that these files name become special, as in `transformers`.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken

from coterie.foundation.compiled import compiled, without_traces
from coterie.foundation.errors import TokenizerError
from coterie.foundation.printable import printable
from coterie.foundation.records import read_json
from coterie.tokenizer.conventions import Conventions
from coterie.tokenizer.interface import Tokenizer
from coterie.tokenizer.saving import load_tokenizer, tokenizer_path
from coterie.tokenizer.special import END_OF_TEXT
from coterie.tokenizer.subword import SubwordTokenizer, read_rules

_BESIDE = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "config.json",
)
# The order in which transformers adds those that a vocabulary lacks, which numbers them.
NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
# Entries of a tokenizer_config.json that change how text is treated, or that other programs use.
_KEPT = (
    "add_prefix_space", "clean_up_tokenization_spaces", "legacy", "model_max_length",
    "padding_side", "spaces_between_special_tokens", "split_special_tokens", "truncation_side",
    "use_default_system_prompt", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token",
    "additional_special_tokens", "extra_special_tokens",
)  # fmt: skip
Beside = Mapping[str, Mapping[str, Any]]


def from_huggingface(path: Path | str) -> Tokenizer:
    """Read the tokenizer of a foreign model.

    Args:
        path: a folder with a tokenizer.json, or that file; the files beside it are read as well.

    Raises:
        TokenizerError: there is no tokenizer.json, it is damaged, nothing says which token ends a
            text, or a convention cannot be kept here.
    """
    file = _file(Path(path))
    description = _read(file)
    if "model" not in description:
        return load_tokenizer(file)  # our own, or an error that says what it is
    beside = {name: _read(file.with_name(name)) for name in _BESIDE}
    try:
        rules = read_rules(description)
        with compiled("The tokens named beside it cannot be added", TokenizerError):
            _add_named(rules, beside)
        return SubwordTokenizer(rules, conventions=_conventions(rules, beside, file))
    except TokenizerError as error:
        raise TokenizerError(f"{file}: {error.message}", hint=error.hint) from error


def fitted(tokenizer: Tokenizer, rows: int) -> Tokenizer:
    """Return a tokenizer for a model with `rows` rows in its embedding.

    Added tokens beyond are kept, and refused where a text holds them: a `[PAD]` that only batches
    need often has no row.

    Raises:
        TokenizerError: tokens of ordinary text are beyond them.
    """
    if tokenizer.vocab_size <= rows:
        return tokenizer
    if isinstance(tokenizer, SubwordTokenizer):
        return tokenizer.limited(rows)
    raise TokenizerError(
        f"The tokenizer has {tokenizer.vocab_size:,} tokens, the model knows {rows:,}.",
        hint="Name the tokenizer that the model was trained with.",
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
    """Return the object in a JSON file; an empty one if there is no file."""
    try:
        content = read_json(file, TokenizerError)
    except FileNotFoundError:
        return {}
    if not isinstance(content, dict):
        raise TokenizerError(f"{file} does not hold a JSON object.")
    return content


def _add_named(rules: tokenizers.Tokenizer, beside: Beside) -> None:
    """Add the tokens that the files name, with their flags."""
    config = beside["tokenizer_config.json"]
    listed = config.get("added_tokens_decoder")
    if isinstance(listed, dict):
        for number, token in sorted(listed.items(), key=lambda item: int(item[0])):
            _add_listed(rules, int(number), token)
    known = {token.content for token in rules.get_added_tokens_decoder().values()}
    sources = [config] if listed is not None else [beside["special_tokens_map.json"], config]
    said = {**sources[-1], **sources[0]}
    named = [_token(said.get(name)) for name in NAMED]
    for source in sources:
        for name in ("additional_special_tokens", "extra_special_tokens"):
            several = source.get(name) or []
            several = several.values() if isinstance(several, dict) else several
            named += [_token(each) for each in several]
    fresh = {each.content: each for each in named if each is not None and each.content not in known}
    rules.add_tokens(list(fresh.values()))


def _add_listed(rules: tokenizers.Tokenizer, number: int, token: Any) -> None:
    """Add a token that a file lists with its id.

    Raises:
        TokenizerError: it would get another id, or the text of another token.
    """
    added = AddedToken(**token) if isinstance(token, dict) else AddedToken(str(token))
    present = rules.token_to_id(added.content)
    rules.add_tokens([added])
    if rules.token_to_id(added.content) != number:
        found = rules.token_to_id(added.content)
        where = "in tokenizer.json" if present is not None else "after all others"
        raise TokenizerError(
            f"tokenizer_config.json lists {printable(added.content, keep='')!r} as token {number}, "
            f"but {where} it is {found}."
        )


def _token(said: Any) -> AddedToken | None:
    """Return a token that a file names as a special one."""
    if isinstance(said, dict) and isinstance(said.get("content"), str) and said["content"]:
        flags = ("lstrip", "rstrip", "single_word", "normalized")
        given = {flag: said[flag] for flag in flags if flag in said}
        return AddedToken(said["content"], special=True, **given)
    return AddedToken(said, special=True) if isinstance(said, str) and said else None


def _conventions(rules: tokenizers.Tokenizer, beside: Beside, file: Path) -> Conventions:
    named = list(_named(rules, beside, "eos_token"))
    added = {token.content for token in rules.get_added_tokens_decoder().values()}
    ends = unique([
        *([END_OF_TEXT] if END_OF_TEXT in added else []),
        *named,
        *_numbered(rules, beside, "eos_token_id"),
    ])  # fmt: skip
    if not ends:
        raise TokenizerError(
            "nothing says which token ends a text.",
            hint='Put a tokenizer_config.json beside it that holds {"eos_token": "…"}.',
        )
    begin, close = _frame(rules, beside)
    config = beside["tokenizer_config.json"]
    template, several = _chat_template(beside, file)
    return Conventions(
        ends=ends if close is None or close in ends else (*ends, close),
        begin=begin,
        chat_template=template,
        close=close,
        eos=named[0] if named and named[0] != ends[0] else None,
        config={name: config[name] for name in _KEPT if config.get(name) is not None} | several,
    )


def unique(tokens: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(tokens))


def _named(rules: tokenizers.Tokenizer, beside: Beside, key: str) -> Iterable[str]:
    """Yield the tokens that the files name by their text."""
    for content in beside.values():
        token = content.get(key)
        text = token.get("content") if isinstance(token, dict) else token
        if isinstance(text, str) and rules.token_to_id(text) is not None:
            yield text


def _numbered(rules: tokenizers.Tokenizer, beside: Beside, key: str) -> Iterable[str]:
    """Yield the tokens that the files name by id; there may be several."""
    for content in beside.values():
        numbers = content.get(key)
        for number in numbers if isinstance(numbers, list) else [numbers]:
            if type(number) is int and 0 <= number < 1 << 32:
                text = rules.id_to_token(number)
                if text is not None:
                    yield text


def _frame(rules: tokenizers.Tokenizer, beside: Beside) -> tuple[str | None, str | None]:
    """Return the tokens that the rules or the files put before and after every text.

    Raises:
        TokenizerError: there are several before or after, or one is asked for and not named.
    """
    with compiled("Its post-processor breaks down", TokenizerError), without_traces():
        before, closing = next(filter(None, map(frame_of(rules), PROBES)), ([], []))
    if len(before) > 1 or len(closing) > 1:
        raise TokenizerError(
            f"it puts {printable(' '.join(before) or '–', keep='')} before and "
            f"{printable(' '.join(closing) or '–', keep='')} after every text; only one token each "
            "can be kept here."
        )
    config = beside["tokenizer_config.json"]
    if not before and config.get("add_bos_token"):
        before = [_asked(rules, beside, "bos")]
    if not closing and config.get("add_eos_token"):
        closing = [_asked(rules, beside, "eos")]
    return (before[0] if before else None), (closing[0] if closing else None)


PROBES = ("a", "e", "A", "1", ".", "あ", "\u0430")


def frame_of(rules: tokenizers.Tokenizer) -> Callable[[str], tuple[list[str], list[str]] | None]:
    """Return a function from a text to the tokens put around it; None: the text has no tokens."""

    def frame(text: str) -> tuple[list[str], list[str]] | None:
        try:
            inner = rules.encode(text, add_special_tokens=False).tokens
        except Exception:  # the vocabulary does not cover it
            return None
        whole = rules.encode(text, add_special_tokens=True).tokens
        size = len(inner)
        places = [at for at in range(len(whole) - size + 1) if whole[at : at + size] == inner]
        return (whole[: places[0]], whole[places[0] + size :]) if size and places else None

    return frame


def _asked(rules: tokenizers.Tokenizer, beside: Beside, name: str) -> str:
    """Return the token that `add_bos_token` or `add_eos_token` refers to."""
    found = [*_named(rules, beside, f"{name}_token"), *_numbered(rules, beside, f"{name}_token_id")]
    if not found:
        raise TokenizerError(f"tokenizer_config.json sets add_{name}_token, but names none.")
    return found[0]


def _chat_template(beside: Beside, file: Path) -> tuple[str | None, dict[str, Any]]:
    """Return the default chat template, and all of them by name where there are several."""
    template = file.with_name("chat_template.jinja")
    if template.is_file():
        try:
            return template.read_text(encoding="utf-8"), {}
        except (OSError, UnicodeDecodeError) as error:
            raise TokenizerError(f"{template} is no text that can be read: {error}") from error
    said = beside["tokenizer_config.json"].get("chat_template")
    if isinstance(said, list):  # several, by name
        said = {each.get("name"): each.get("template") for each in said if isinstance(each, dict)}
    if not isinstance(said, dict):
        return (said if isinstance(said, str) else None), {}
    named = {str(name): each for name, each in said.items() if isinstance(each, str)}
    listed = [{"name": name, "template": each} for name, each in named.items()]
    return named.get("default"), {"chat_template": listed} if listed else {}
