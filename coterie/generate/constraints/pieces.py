"""The tokens of a vocabulary by what they are to a line of verse, and where they lead in a tree."""

import functools
import re
from collections.abc import Iterator

import numpy as np

from coterie.generate.constraints.lexicon import ROOT, Lexicon
from coterie.generate.constraints.loops.tables import WHOLE, Between, Words
from coterie.language.verse.lines import WORD, key_of
from coterie.tokenizer.interface import Tokenizer

MARKS = ',.;:!?-"'
DASHES, QUOTES = "-—–", '"“”'
_LETTERS = re.compile(r"( ?)([A-Za-z']?[a-z'-]*)", re.ASCII)
_BETWEEN = re.compile(r"[,.;:!?\"“”—– \n-]+")
_STOPS = ",.;:!?"
# What stands between words, by phase: after a word, after a mark, after a closing quote, after the
# first half of a dash or a whole one, before the next word, and behind the quote that opens it.
_GOES: dict[str, dict[str, str]] = {
    "word": {"mark": _STOPS, "shut": '"”', "dash": "—–", "half": "-", "space": " ", "open": "\n"},
    "mark": {"shut": '"”', "dash": "—–", "half": "-", "space": " ", "open": "\n"},
    "shut": {"dash": "—–", "half": "-", "space": " ", "open": "\n"},
    "half": {"dash": "-"},
    "dash": {"space": " ", "open": "\n"},
    "space": {"quote": '"“'},
    "open": {"quote": '"“'},
}
Lead = tuple[str, bool]
"""The phase after a text between words, and whether it pauses."""
SAID = ("word", "mark", "shut", "half", "dash")  # phases in which a word waits for what follows


def between(phase: str, character: str) -> str | None:
    """Return the phase after a character between words; None: it cannot stand there."""
    for after, characters in _GOES.get(phase, {}).items():
        if character in characters:
            return after
    return None


def last_word(line: str) -> str:
    """Return the last word of a line as it is looked up."""
    return key_of((WORD.findall(line) or [""])[-1])


class Pieces:
    """The tokens that verse is written with.

    Attributes:
        texts: of all tokens.
        opening: tokens of letters, from the root on.
        spaced: the same with a blank before them.
        letters: of tokens of letters the text, by token.
        between: tokens that may stand between words, and where they lead, by the phase before.
        newline: tokens of a line's end alone.
        tags: tokens that begin a tag.
        ends: tokens that end the text.
    """

    def __init__(self, tokenizer: Tokenizer, lexicon: Lexicon, marks: str) -> None:
        special = set(tokenizer.special_tokens.values())
        self.ends = sorted(tokenizer.ends)
        self.size = tokenizer.vocab_size
        self._lexicon = lexicon
        self._running = np.append(0, np.cumsum(lexicon.counts))
        opening, spaced, self._letters = _Tree(), _Tree(), _Tree()
        found_between: dict[str, list[tuple[int, Lead]]] = {each: [] for each in _GOES}
        self.tags: list[int] = []
        self.letters: dict[int, str] = {}
        self.texts = [
            tokenizer.token_bytes(token).decode("utf-8", "replace") for token in range(self.size)
        ]
        for token, text in enumerate(self.texts):
            if text.startswith("<"):
                self.tags += [token] if token not in tokenizer.ends else []
            elif token in special or not text:
                continue
            if _BETWEEN.fullmatch(text) and not set(text) & _barred(marks):
                for phase, lead in _leads(text):
                    found_between[phase].append((token, lead))
            if found := _LETTERS.fullmatch(text):
                self.letters[token] = text
                (spaced if found[1] else opening).add(found[2].lower(), token)
                if text == text.lower():
                    self._letters.add(text, token)
        self.between = {phase: _together(found) for phase, found in found_between.items()}
        self.newline = [token for token, text in enumerate(self.texts) if text == "\n"]
        self.opening, self.spaced = self._from(ROOT, opening), self._from(ROOT, spaced)

    @functools.cache  # noqa: B019 - one for each tokenizer in use
    def continuing(self, node: int) -> Words:
        """Return the tokens that go on with a word from a node of the tree."""
        return self._from(node, self._letters)

    def _from(self, node: int, tree: "_Tree") -> Words:
        """Return the tokens of a tree that words go on with from a node, and where they lead."""
        tokens: list[int] = []
        nodes, starts = [], [0]
        waiting = [(node, tree)]
        while waiting:
            at, letters = waiting.pop()
            if letters.tokens:
                tokens += letters.tokens
                nodes.append(at)
                starts.append(len(tokens))
            children = self._lexicon.children[at]  # few, but for the first letters
            waiting += [(below, letters.children[letter]) for letter, below in children.items()
                        if letter in letters.children]  # fmt: skip
        first, after = self._lexicon.first[nodes], self._lexicon.after[nodes]
        parts = 1 / (WHOLE * (self._running[after] - self._running[first]))
        return Words(np.array(tokens, dtype=np.int64), np.array(starts), first, after, parts)


def _leads(text: str) -> Iterator[tuple[str, Lead]]:
    """Yield from which phases a text between words leads, to which phase, and if it pauses."""
    for start in _GOES:
        phase, pauses = start, start not in ("word", "space", "open")
        for character in text:
            phase = between(phase or "", character)
            pauses |= phase not in ("space", "open") and start != "open"
        if phase is not None:
            yield start, (phase, pauses)


def _together(found: list[tuple[int, Lead]]) -> tuple[Between, list[Lead]]:
    leads = list(dict.fromkeys(lead for _, lead in found))
    tokens = np.array([token for token, _ in found], dtype=np.int64)
    at = np.array([leads.index(lead) for _, lead in found], dtype=np.int64)
    return Between(tokens, at), leads


def _barred(marks: str) -> set[str]:
    """Return the characters between words that are not among the marks that may stand there."""
    asked = {*marks, *(DASHES if "-" in marks else ""), *(QUOTES if '"' in marks else "")}
    return {*_STOPS, *DASHES, *QUOTES} - asked


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
def pieces_of(tokenizer: Tokenizer, lexicon: Lexicon, marks: str) -> Pieces:
    """Return the tokens of a vocabulary by what they are, made once."""
    return Pieces(tokenizer, lexicon, marks)
