"""The tokens of a vocabulary by what they are to a line of verse, and where they lead in a tree."""

import functools
import re
from typing import NamedTuple

import numpy as np

from coterie.generate.constraints.lexicon import ROOT, Lexicon
from coterie.tokenizer.interface import Tokenizer

MARKS = ",.;:!?"
WHOLE = 1e9  # parts of a chance: sums of whole numbers are exact
_LETTERS = re.compile(r"( ?)([A-Za-z']?[a-z'-]*)", re.ASCII)
_BETWEEN = re.compile(rf"([{MARKS}]?)( |\n)?")


class Words(NamedTuple):
    """Tokens that begin or continue words, and what is below where they lead.

    Attributes:
        tokens: their numbers.
        first: the first word of each.
        after: the word after the last one of each.
        parts: one over how often all these words are used, in parts of a chance.
    """

    tokens: np.ndarray
    first: np.ndarray
    after: np.ndarray
    parts: np.ndarray


class Pieces:
    """The tokens that verse is written with.

    Attributes:
        opening: tokens of letters, from the root on.
        spaced: the same with a blank before them.
        between: what may stand between words, by whether it has a mark, and its blank or line end.
        tags: tokens that begin a tag.
        ends: tokens that end the text.
    """

    def __init__(self, tokenizer: Tokenizer, lexicon: Lexicon) -> None:
        special = set(tokenizer.special_tokens.values())
        self.ends = sorted(tokenizer.ends)
        self.size = tokenizer.vocab_size
        self._lexicon = lexicon
        self._running = np.append(0, np.cumsum(lexicon.counts))
        opening, spaced, self._letters = _Tree(), _Tree(), _Tree()
        self.between: dict[tuple[bool, str], list[int]] = {}
        self.tags: list[int] = []
        for token in range(tokenizer.vocab_size):
            text = tokenizer.token_bytes(token).decode("utf-8", "replace")
            if text.startswith("<"):
                self.tags += [token] if token not in tokenizer.ends else []
            elif token in special or not text:
                continue
            elif found := _BETWEEN.fullmatch(text):
                self.between.setdefault((bool(found[1]), found[2] or ""), []).append(token)
            elif found := _LETTERS.fullmatch(text):
                (spaced if found[1] else opening).add(found[2].lower(), token)
                if text == text.lower():
                    self._letters.add(text, token)
        self.opening, self.spaced = self._from(ROOT, opening), self._from(ROOT, spaced)

    @functools.cache  # noqa: B019 - one for each tokenizer in use
    def continuing(self, node: int) -> Words:
        """Return the tokens that go on with a word from a node of the tree."""
        return self._from(node, self._letters)

    def _from(self, node: int, tree: "_Tree") -> Words:
        """Return the tokens of a tree that words go on with from a node, and where they lead."""
        tokens: list[int] = []
        nodes: list[int] = []
        waiting = [(node, tree)]
        while waiting:
            at, letters = waiting.pop()
            tokens += letters.tokens
            nodes += [at] * len(letters.tokens)
            children = self._lexicon.children[at]
            waiting += [(children[letter], after) for letter, after in letters.children.items()
                        if letter in children]  # fmt: skip
        at = np.array(nodes, dtype=np.int64)
        first, after = self._lexicon.first[at], self._lexicon.after[at]
        parts = 1 / (WHOLE * (self._running[after] - self._running[first]))
        return Words(np.array(tokens, dtype=np.int64), first, after, parts)


class _Tree:
    """Texts of tokens by their letters."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.children: dict[str, _Tree] = {}

    def add(self, text: str, token: int) -> None:
        at = self
        for letter in text:
            at = at.children.setdefault(letter, _Tree())
        at.tokens.append(token)


@functools.lru_cache(maxsize=4)
def pieces_of(tokenizer: Tokenizer, lexicon: Lexicon) -> Pieces:
    """Return the tokens of a vocabulary by what they are, made once."""
    return Pieces(tokenizer, lexicon)
