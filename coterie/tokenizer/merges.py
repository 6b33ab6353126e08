"""A faster way through a tokenizer.json that holds ordinary byte-level BPE.

tiktoken's core gives the same numbers as the `tokenizers` library, several times faster, when
merging by rank of the joined bytes is the same as merging listed pairs. That holds if every merged
token, encoded on its own, gives exactly itself: within the bounds of a token, no merge from outside
ever takes part, so the pair present when its turn comes is always the listed one. The condition is
checked for every token when the file is read; a file that does not meet it goes the slow way.
"""

import itertools
from typing import Any

import numpy as np
import tiktoken
import tokenizers

from coterie.tokenizer.tables import TABLES, byte_alphabet

_ODD = ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix")

# GPT-2's words after every digit was made a word, as StarCoder and SmolLM have it: Digits(
# individual_digits=True) before ByteLevel. Blanks before a digit are as those at a text's end.
_DIGITS_PATTERN = (
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++|\p{N}| ?[^\s\p{L}\p{N}]++|\s++$|\s++(?=\p{N})|\s+(?!\S)|\s"
)


class FastRules:
    """Byte-level BPE through tiktoken's core."""

    def __init__(
        self, pattern: str, ranks: dict[bytes, int], special_tokens: dict[str, int]
    ) -> None:
        # The core fails without a rank for each byte; texts with these bytes never reach it.
        self._without_token = bytes(byte for byte in range(256) if bytes([byte]) not in ranks)
        free = max([*ranks.values(), *special_tokens.values()], default=0) + 1
        further = {bytes([byte]): free + i for i, byte in enumerate(self._without_token)}
        self._core = tiktoken.Encoding(
            name="bpe",
            pat_str=pattern,
            mergeable_ranks={**ranks, **further},
            special_tokens=special_tokens,
        )

    def encode(self, text: str, *, special: bool) -> np.ndarray | None:
        """Return the numbers of a text, uint32 [T], or `None` where the core gives up.

        It does where the text has bytes without a token: the library joins what is around them.
        """
        if self._without_token:
            content = text.encode("utf-8")
            if len(content.translate(None, self._without_token)) < len(content):
                return None
        allowed = self._core.special_tokens_set if special else frozenset()
        try:
            return self._core.encode_to_numpy(text, allowed_special=allowed, disallowed_special=())
        except ValueError:  # its regular expressions bound the length of a run of blanks
            return None


def fast_rules(description: dict[str, Any]) -> FastRules | None:
    """Return the fast way through a tokenizer.json, or `None` where it would not be exact."""
    pattern = _pattern(description["pre_tokenizer"])
    if pattern is None or not _is_plain_byte_level(description):
        return None
    model, added = description["model"], description["added_tokens"]
    special_tokens = {token["content"]: token["id"] for token in added}
    pieces = {piece: n for piece, n in model["vocab"].items() if piece not in special_tokens}
    merged = [_join(merge) for merge in model["merges"]]
    numbers = [pieces.get(piece, -1) for piece in merged]
    in_order = all(first < second for first, second in itertools.pairwise(numbers))
    singles = [piece for piece in pieces if len(piece) == 1]
    alphabet = byte_alphabet()
    complete = set(singles) <= set(alphabet) and len(pieces) == len(singles) + len(merged)
    if not in_order or not complete or -1 in numbers or not _all_whole(merged, model):
        return None
    ranks = {bytes(alphabet[c] for c in piece): number for piece, number in pieces.items()}
    return FastRules(pattern, ranks, special_tokens)


def splits_words(description: dict[str, Any]) -> bool:
    """Whether the rules split a text into words as GPT-2's do, so that `cuts` holds for them."""
    return (
        description["normalizer"] is None
        and _pattern(description["pre_tokenizer"]) is not None
        and all(
            not (token["lstrip"] or token["rstrip"] or token["single_word"])
            and len(token["content"].splitlines()) == 1
            for token in description["added_tokens"]
        )
    )


def keeps_text(description: dict[str, Any]) -> bool:
    """Whether the rules are byte-level BPE that changes, adds and drops nothing."""
    model, alphabet = description["model"], byte_alphabet().keys()
    added = description["added_tokens"]
    special = {token["content"] for token in added}
    stages = _stages(description["pre_tokenizer"])
    return (
        model.get("type") == "BPE"
        and not any(model.get(name) for name in (*_ODD, "byte_fallback"))
        and alphabet <= model["vocab"].keys()
        and all(piece in special or alphabet >= set(piece) for piece in model["vocab"])
        and description["normalizer"] is None
        and (description["decoder"] or {}).get("type") == "ByteLevel"
        and [stage.get("type") for stage in stages].count("ByteLevel") == 1
        and all(only_splits(stage) for stage in stages)
        and not any(token["lstrip"] or token["rstrip"] for token in added)
    )


def _stages(pre_tokenizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    if pre_tokenizer is None:
        return []
    return pre_tokenizer.get("pretokenizers") or [pre_tokenizer]


def only_splits(stage: dict[str, Any]) -> bool:
    """Whether a stage of a pretokenizer neither adds nor drops anything."""
    return (
        stage.get("type") in ("ByteLevel", "Split", "Digits")
        and stage.get("behavior") != "Removed"
        and not stage.get("add_prefix_space")
    )


def _is_plain_byte_level(description: dict[str, Any]) -> bool:
    model = description["model"]
    return (
        model.get("type") == "BPE"
        and not any(model.get(name) for name in _ODD)
        and not model.get("byte_fallback")
        and not model.get("ignore_merges")
        and splits_words(description)
        and all(token["special"] for token in description["added_tokens"])
    )


def _pattern(pre_tokenizer: dict[str, Any] | None) -> str | None:
    """Return the pattern of GPT-2's words, or of those with every digit a word; else `None`."""
    steps = _stages(pre_tokenizer)
    if len(steps) == 2 and steps[0].get("type") == "Digits" and steps[0].get("individual_digits"):
        steps, pattern = steps[1:], _DIGITS_PATTERN
    else:
        pattern = TABLES["gpt2"].pattern  # what the library's ByteLevel splits by
    byte_level = (
        len(steps) == 1
        and steps[0].get("type") == "ByteLevel"
        and not steps[0].get("add_prefix_space")
        and steps[0].get("use_regex", True)
    )
    return pattern if byte_level else None


def _join(merge: str | list[str]) -> str:
    """Return the token that a merge makes; older files write the pair with a blank between."""
    return "".join(merge.split(" ") if isinstance(merge, str) else merge)


def _all_whole(merged: list[str], model: dict[str, Any]) -> bool:
    """Whether each merged token, encoded on its own by the library, gives exactly itself."""
    pairs = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    alone = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=model["vocab"], merges=pairs))
    encodings = alone.encode_batch_fast(merged, add_special_tokens=False)
    return all(len(encoding.ids) == 1 for encoding in encodings)
