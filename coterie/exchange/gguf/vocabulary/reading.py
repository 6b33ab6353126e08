"""Building a tokenizer from the values of a GGUF file."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

from coterie.exchange.gguf.pretokenizers import PRETOKENIZERS
from coterie.exchange.gguf.vocabulary import keys
from coterie.exchange.tokenizers.ranks import merges_of
from coterie.exchange.tokenizers.reading import unique
from coterie.foundation.compiled import compiled
from coterie.foundation.errors import TokenizerError, nearest
from coterie.foundation.records import validated
from coterie.foundation.settings import shown
from coterie.tokenizer.conventions import Conventions
from coterie.tokenizer.special import END_OF_TEXT
from coterie.tokenizer.subword import SubwordTokenizer, check_rules


def read_vocabulary(values: Mapping[str, Any]) -> SubwordTokenizer | None:
    """Return the tokenizer of a file; None if it holds none.

    Raises:
        TokenizerError: it is of a kind that cannot be built here, or damaged.
    """
    said = _checked(values)
    kind, pieces = said.get("model"), said.get("tokens")
    if kind in (None, "no_vocab", "none") or not pieces:
        return None
    kinds = said.get("token_type") or [keys.NORMAL] * len(pieces)
    if len(kinds) != len(pieces):
        raise TokenizerError(
            f"The file names {len(pieces)} tokens, but {len(kinds)} kinds of them."
        )
    if kind not in ("gpt2", "llama"):
        raise TokenizerError(
            f"The file's tokenizer is of the kind “{shown(kind)}”, which is not read here; "
            f"{nearest(str(kind), ['gpt2', 'llama'])}"
        )
    with compiled("The file's tokenizer cannot be built", TokenizerError):
        if kind == "gpt2":
            rules, begins = _byte_level(said, pieces, kinds)
        else:
            rules, begins = _sentence_piece(said, pieces, kinds), True
        _add_tokens(rules, pieces, kinds)
    check_rules(rules)
    return SubwordTokenizer(rules, conventions=_conventions(values, said, kinds, begins=begins))


class _Said(BaseModel):
    """The types of a file's values on its tokenizer; any may be missing."""

    model_config = ConfigDict(strict=True, extra="ignore")

    model: str | None = None
    pre: str | None = None
    tokens: list[str] | None = None
    token_type: list[int] | None = None
    scores: list[float] | None = None
    merges: list[str] | None = None
    add_bos_token: bool | None = None
    add_eos_token: bool | None = None
    add_space_prefix: bool | None = None
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    eot_token_id: int | None = None
    eom_token_id: int | None = None
    unknown_token_id: int | None = None
    seperator_token_id: int | None = None
    padding_token_id: int | None = None
    mask_token_id: int | None = None


def _checked(values: Mapping[str, Any]) -> dict[str, Any]:
    said = {
        name.removeprefix(keys.PREFIX): each for name, each in values.items() if keys.PREFIX in name
    }
    checked = validated(_Said, said, "What the file says of its tokenizer", TokenizerError)
    return {name: each for name, each in checked if each is not None}


def _conventions(
    values: Mapping[str, Any], said: dict[str, Any], kinds: list[int], *, begins: bool
) -> Conventions:
    pieces = said["tokens"]
    ends, named = _ends(said, pieces, kinds), _named(said, pieces, "eos_token_id")
    if said.get("add_eos_token") and named is None:
        raise TokenizerError("The file asks for a token after every text, but names none.")
    config = {name: _named(said, pieces, key) for name, key in keys.NAMED.items()}
    template, others = values.get(keys.TEMPLATE), values.get(keys.TEMPLATES)
    listed = [
        {"name": name, "template": text}
        for name in (others if isinstance(others, list) else [])
        if isinstance(name, str) and isinstance(text := values.get(f"{keys.TEMPLATE}.{name}"), str)
    ]
    template = template if isinstance(template, str) else None
    if listed and template is not None:
        listed.insert(0, {"name": "default", "template": template})
    return Conventions(
        ends=ends,
        begin=_named(said, pieces, "bos_token_id") if said.get("add_bos_token", begins) else None,
        chat_template=template,
        close=named if said.get("add_eos_token") else None,
        eos=named if named != ends[0] else None,
        config={name: text for name, text in config.items() if text is not None}
        | ({"chat_template": listed} if listed else {}),
    )


def _named(said: dict[str, Any], pieces: list[str], key: str) -> str | None:
    number = said.get(key)
    return pieces[number] if number is not None and 0 <= number < len(pieces) else None


def _byte_level(
    said: dict[str, Any], pieces: list[str], kinds: list[int]
) -> tuple[Tokenizer, bool]:
    """Return the rules of byte-level BPE, and whether texts begin with a token by default."""
    name = said.get("pre", "")
    if name not in PRETOKENIZERS:
        raise TokenizerError(
            f"The file's pretokenizer is “{name or 'default'}”, which is not known here; "
            f"{nearest(name, PRETOKENIZERS)}"
        )
    pretokenizer = PRETOKENIZERS[name]
    numbers = _numbered(pieces, kinds)
    pairs = (tuple(merge.split(" ", 1)) for merge in said.get("merges", []))
    # A pair whose result is no token merges nothing that remains.
    merges = [pair for pair in pairs if len(pair) == 2 and "".join(pair) in numbers]
    rules = Tokenizer(models.BPE(vocab=numbers, merges=merges, ignore_merges=pretokenizer.whole))
    rules.normalizer = pretokenizer.normalizer()
    rules.pre_tokenizer = pretokenizer.pre_tokenizer()
    rules.decoder = decoders.ByteLevel()
    return rules, pretokenizer.begins


def _sentence_piece(said: dict[str, Any], pieces: list[str], kinds: list[int]) -> Tokenizer:
    """Return the rules of BPE by scores, which merges the neighbours of the highest score first."""
    scores = said.get("scores")
    if not scores or len(scores) != len(pieces):
        raise TokenizerError("The file's tokenizer merges by scores, but does not hold them.")
    numbers = _numbered(pieces, kinds)
    mergeable = (i for i, kind in enumerate(kinds) if kind == keys.NORMAL)
    order = sorted(mergeable, key=lambda i: (-scores[i], i))
    merges = merges_of({pieces[number]: rank for rank, number in enumerate(order)})
    unknown = next((pieces[i] for i, kind in enumerate(kinds) if kind == keys.UNKNOWN), None)
    rules = Tokenizer(
        models.BPE(
            vocab=numbers, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=True
        )
    )
    leading = bool(said.get("add_space_prefix", True))
    before = [normalizers.Prepend("▁")] if leading else []
    rules.normalizer = normalizers.Sequence([*before, normalizers.Replace(" ", "▁")])
    after = [decoders.Strip(" ", 1, 0)] if leading else []
    rules.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *after]
    )
    return rules


def _numbered(pieces: list[str], kinds: list[int]) -> dict[str, int]:
    """Return the id of each piece, without those that only pad the list."""
    used = [number for number, kind in enumerate(kinds) if kind != keys.UNUSED]
    numbers = {pieces[number]: number for number in used}
    if len(numbers) != len(used):
        raise TokenizerError("The file's tokenizer holds the same text under two numbers.")
    return numbers


def _add_tokens(rules: Tokenizer, pieces: list[str], kinds: list[int]) -> None:
    """Mark control and user-defined tokens, which are in the vocabulary already."""
    of_kind = {
        kind: [piece for piece, each in zip(pieces, kinds, strict=True) if each == kind]
        for kind in (keys.CONTROL, keys.USER_DEFINED)
    }
    rules.add_tokens([AddedToken(piece, normalized=False) for piece in of_kind[keys.USER_DEFINED]])
    rules.add_special_tokens(
        [AddedToken(piece, special=True, normalized=False) for piece in of_kind[keys.CONTROL]]
    )


def _ends(said: dict[str, Any], pieces: list[str], kinds: list[int]) -> tuple[str, ...]:
    """Return the tokens that end a text, the one that separates documents first."""
    ends = [end for name in keys.ENDS if (end := _named(said, pieces, name)) is not None]
    separates = END_OF_TEXT in pieces and kinds[pieces.index(END_OF_TEXT)] == keys.CONTROL
    if separates:
        ends.insert(0, END_OF_TEXT)
    if not ends:
        raise TokenizerError("The file does not say which token ends a text.")
    return unique(ends)
