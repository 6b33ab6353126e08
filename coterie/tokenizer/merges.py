"""A faster way through a tokenizer.json that holds ordinary byte-level BPE.

tiktoken's core gives the same numbers as the `tokenizers` library, several times faster, when
merging by rank of the joined bytes is the same as merging listed pairs. That holds if every merged
token, encoded on its own, gives exactly itself: within the bounds of a token, no merge from outside
ever takes part, so the pair present when its turn comes is always the listed one. The condition is
checked for every token when the file is read; a file that does not meet it goes the slow way.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import tiktoken
import tokenizers

from coterie.tokenizer.tables import TABLES, byte_alphabet

_ODD = ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix")


class FastRules:
    """Byte-level BPE through tiktoken's core."""

    def __init__(self, ranks: dict[bytes, int], special_tokens: dict[str, int]) -> None:
        self._core = tiktoken.Encoding(
            name="bpe",
            pat_str=TABLES["gpt2"].pattern,  # what the library's ByteLevel splits by
            mergeable_ranks=ranks,
            special_tokens=special_tokens,
        )

    def encode(self, text: str, *, special: bool) -> np.ndarray | None:
        """Return the numbers of a text, uint32 [T], or `None` where the core gives up."""
        allowed = self._core.special_tokens_set if special else frozenset()
        try:
            return self._core.encode_to_numpy(text, allowed_special=allowed, disallowed_special=())
        except ValueError:  # its regular expressions bound the length of a run of blanks
            return None


def fast_rules(description: dict[str, Any]) -> FastRules | None:
    """Return the fast way through a tokenizer.json, or `None` where it would not be exact."""
    if not _is_plain_byte_level(description):
        return None
    model, added = description["model"], description["added_tokens"]
    special_tokens = {token["content"]: token["id"] for token in added}
    pieces = {piece: n for piece, n in model["vocab"].items() if piece not in special_tokens}
    merged = [_join(merge) for merge in model["merges"]]
    numbers = [pieces.get(piece, -1) for piece in merged]
    in_order = all(first < second for first, second in itertools.pairwise(numbers))
    singles = [piece for piece in pieces if len(piece) == 1]
    alphabet = byte_alphabet()
    complete = set(singles) == set(alphabet) and len(pieces) == len(singles) + len(merged)
    if not in_order or not complete or -1 in numbers or not _all_whole(merged, model):
        return None
    ranks = {bytes(alphabet[c] for c in piece): number for piece, number in pieces.items()}
    return FastRules(ranks, special_tokens)


def cuts_at_lines(description: dict[str, Any]) -> bool:
    """Whether the rules end a word at a line break between a visible character and a letter."""
    return (
        description["normalizer"] is None
        and _splits_like_gpt2(description["pre_tokenizer"])
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
        and all(_only_splits(stage) for stage in stages)
        and not any(token["lstrip"] or token["rstrip"] for token in added)
    )


def _stages(pre_tokenizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    if pre_tokenizer is None:
        return []
    return pre_tokenizer.get("pretokenizers") or [pre_tokenizer]


def _only_splits(stage: dict[str, Any]) -> bool:
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
        and cuts_at_lines(description)
        and all(token["special"] for token in description["added_tokens"])
    )


def _splits_like_gpt2(pre_tokenizer: dict[str, Any] | None) -> bool:
    return (
        pre_tokenizer is not None
        and pre_tokenizer.get("type") == "ByteLevel"
        and not pre_tokenizer.get("add_prefix_space")
        and pre_tokenizer.get("use_regex", True)
    )


def _join(merge: str | list[str]) -> str:
    """Return the token that a merge makes; older files write the pair with a blank between."""
    return "".join(merge.split(" ") if isinstance(merge, str) else merge)


def _all_whole(merged: list[str], model: dict[str, Any]) -> bool:
    """Whether each merged token, encoded on its own by the library, gives exactly itself."""
    pairs = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    alone = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=model["vocab"], merges=pairs))
    encodings = alone.encode_batch_fast(merged, add_special_tokens=False)
    return all(len(encoding.ids) == 1 for encoding in encodings)
