"""Grammars over the vocabulary, by `llguidance` (extra `grammar`): which tokens may come next."""

import functools
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from coterie.foundation.errors import UserError, require
from coterie.tokenizer.interface import Tokenizer


class _Vocabulary:
    """A tokenizer as `llguidance` asks for one."""

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._encode = tokenizer.encode
        self.eos_token_id = min(tokenizer.ends)
        self.tokens = [tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size)]
        unknown = tokenizer.unknown_token
        special = {*tokenizer.special_tokens.values(), *(() if unknown is None else (unknown,))}
        self.special_token_ids = sorted(special)

    def __call__(self, text: bytes | str) -> list[int]:
        return self._encode(text if isinstance(text, str) else text.decode("utf-8", "replace"))


@functools.lru_cache(maxsize=4)
def vocabulary_of(tokenizer: Tokenizer) -> Any:
    """Return a tokenizer's vocabulary for matchers; 0.1 s for 50,000 tokens, then kept."""
    guidance = require("llguidance", "grammar")
    wrapped = guidance.TokenizerWrapper(_Vocabulary(tokenizer))
    return guidance.LLTokenizer(wrapped, eos_token=sorted(tokenizer.ends))


@functools.lru_cache(maxsize=256)
def _fresh(tokenizer: Tokenizer, grammar: str) -> Any:
    guidance = require("llguidance", "grammar")
    matcher = guidance.LLMatcher(vocabulary_of(tokenizer), grammar, log_level=0)
    if matcher.is_error():
        raise ValueError(str(matcher.get_error()).strip())
    return matcher


def matcher_of(tokenizer: Tokenizer, grammar: str) -> Any:
    """Return a matcher of a grammar, in Lark's notation, at its beginning.

    Raises:
        ValueError: the grammar is malformed; the message says where.
    """
    return _fresh(tokenizer, grammar).deep_copy()


def masked(matcher: Any, logits: Float[Tensor, " V"]) -> Float[Tensor, " V"]:
    """Return logits with −∞ for what the grammar does not go on with."""
    packed = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
    if matcher.is_error():
        raise UserError(f"The grammar cannot be followed further: {matcher.get_error()}")
    allowed = np.unpackbits(packed, count=min(len(logits), 8 * len(packed)), bitorder="little")
    kept = torch.zeros(len(logits), dtype=torch.bool)
    kept[: len(allowed)] = torch.from_numpy(allowed.astype(bool))
    return logits.masked_fill(~kept.to(logits.device), -torch.inf)


class Grammatical:
    """Keeps what is written to a grammar, from the first token after the prompt to its end."""

    def __init__(self, matcher: Any, ends: frozenset[int]) -> None:
        self._matcher, self._ends = matcher, ends
        self._taken: list[bool] = []  # whether the matcher was told of the token

    def mask(self, logits: Float[Tensor, " V"]) -> Float[Tensor, " V"]:
        """Return the logits, −∞ for each token that leaves the grammar."""
        return masked(self._matcher, logits)

    def accept(self, token: int) -> None:
        told = token not in self._ends and not self._matcher.is_stopped()
        self._taken.append(told)
        if told:
            self._matcher.consume_token(token)

    def rollback(self, count: int) -> None:
        if count:
            self._matcher.rollback(sum(self._taken[-count:]))
            del self._taken[-count:]

    def __deepcopy__(self, memo: dict[int, Any]) -> "Grammatical":
        other = Grammatical(self._matcher.deep_copy(), self._ends)
        other._taken = list(self._taken)
        return other


def literal(text: str, special: Mapping[str, int]) -> str:
    """Return a text in Lark's notation; special tokens in it are themselves, not their letters."""
    for mark, token in special.items():
        before, found, after = text.partition(mark)
        if found:
            parts = (literal(before, special), f"<[{token}]>", literal(after, special))
            return " ".join(filter(None, parts))
    return json.dumps(text, ensure_ascii=False) if text else ""
