"""Tokens to text step by step, as the decoder of a tokenizer.json joins them.

What a token adds to a text depends on its neighbours: some decoders strip a blank at the very
beginning, put blanks between words, take bytes together or drop what is repeated. Each step here
takes pieces as they come and passes on what no later piece can change, so that a stream adds up to
the whole and a token costs the same however long the text is. What a single piece becomes is left
to the `tokenizers` library; a step that looks at the whole text at once waits for its end.

One thing is done otherwise: where tokens for single bytes do not make up whole characters, the
library gives up the whole run of them, here only the bytes that belong to no character are lost.
"""

import codecs
import copy
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import tokenizers

from coterie.foundation.compiled import compiled
from coterie.foundation.errors import TokenizerError
from coterie.tokenizer.tables import byte_alphabet

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Step(ABC):
    """One step between pieces and text; its state is copied with `copy.copy`."""

    @abstractmethod
    def push(self, piece: str) -> list[str]:
        """Take a piece; return what can no longer change."""

    def finish(self) -> list[str]:
        """Return what is left at the end of the text."""
        return []


class TextDecoder:
    """Turns the tokens of one text into text as they come.

    Args:
        piece: returns the piece of a token; None where a number has none.
        steps: what happens to pieces, in order.
    """

    def __init__(self, piece: Callable[[int], str | bytes | None], steps: Sequence[Step]) -> None:
        self._piece = piece
        self._steps = steps

    def push(self, token: int) -> str:
        """Return the text that a further token completes; possibly none.

        Raises:
            TokenizerError: the number lies outside the vocabulary, or the decoder breaks down.
        """
        piece = self._piece(token)
        return "" if piece is None else "".join(_through(self._steps, [piece]))

    def finish(self) -> str:
        text = ""
        for number, step in enumerate(self._steps):
            text += "".join(_through(self._steps[number + 1 :], step.finish()))
        return text

    def rest(self) -> str:
        """Return what `finish` would return, and stay as it is."""
        return TextDecoder(self._piece, [copy.copy(step) for step in self._steps]).finish()


def _through(steps: Iterable[Step], pieces: list[Any]) -> list[str]:
    for step in steps:
        pieces = [out for piece in pieces for out in step.push(piece)]
    return pieces


class Utf8(Step):
    """Bytes to characters; bytes that belong to none become U+FFFD."""

    def __init__(self) -> None:
        self._pending = b""

    def push(self, piece: Any) -> list[str]:
        """Take bytes, not text."""
        text, used = codecs.utf_8_decode(self._pending + piece, "replace", False)
        self._pending = (self._pending + piece)[used:]
        return [text] if text else []

    def finish(self) -> list[str]:
        text, self._pending = self._pending.decode("utf-8", "replace"), b""
        return [text] if text else []


class Recipe:
    """The steps of a decoder, made anew for each text.

    Args:
        decoder: the part of a tokenizer.json; None: pieces are joined with blanks.
    """

    def __init__(self, decoder: dict[str, Any] | None) -> None:
        self._plans: list[Callable[[], Step]] = []
        self._joined = False  # from there on the library sees one piece
        if decoder is None:
            self._plans.append(lambda: _Mapped(lambda piece, first: " " * (not first) + piece))
        parts = flat_steps(decoder)
        for number, each in enumerate(parts):
            loose = number + 1 == len(parts) or parts[number + 1].get("type") == "Fuse"
            self._add(each, loose)

    def steps(self) -> list[Step]:
        """Return fresh steps."""
        return [plan() for plan in self._plans]

    def cleaned(self) -> "Recipe":
        """Return a recipe that also takes out blanks as `clean_up_tokenization_spaces` does."""
        other = copy.copy(self)
        swaps = [(" " + mark, mark) for mark in (*".?!,", "n't", "'m", "'s", "'ve", "'re")]
        swaps.insert(4, (" ' ", "'"))
        other._plans = [*self._plans, *((lambda s=swap: _Swapped(*s)) for swap in swaps)]
        return other

    def _add(self, decoder: dict[str, Any], loose: bool) -> None:
        """Add a step; `loose`: nobody after it looks at where its pieces end."""
        kind = decoder.get("type")
        if kind == "Fuse":
            self._joined = True
        elif kind == "Strip":
            sizes = decoder["content"], decoder["start"], decoder["stop"]
            if self._joined:
                self._plans.append(lambda: _StrippedText(*sizes))
            else:
                self._plans.append(lambda: _Mapped(lambda piece, _: _strip(piece, *sizes)))
        elif self._joined or kind not in _KINDS:
            library, joined = _library(decoder), self._joined
            self._plans.append(lambda: _Whole(library, joined=joined))
            self._joined = True
        else:
            self._plans.append(_KINDS[kind](decoder, loose))
            self._joined = kind == "ByteLevel"


class _Mapped(Step):
    """Each piece becomes another, the first perhaps in a way of its own."""

    def __init__(self, become: Callable[[str, bool], str]) -> None:
        self._become = become
        self._first = True

    def push(self, piece: str) -> list[str]:
        first, self._first = self._first, False
        return [self._become(piece, first)]


class _Distinct(Step):
    """A piece equal to the one before it is dropped (CTC), and so are those that become nothing."""

    def __init__(self, become: Callable[[str, bool], str]) -> None:
        self._become = become
        self._last: str | None = None

    def push(self, piece: str) -> list[str]:
        last, self._last = self._last, piece
        made = "" if piece == last else self._become(piece, True)
        return [made] if made else []


class _Suffixed(Step):
    """Words end with a suffix that stands for a blank, but at the end of the text for nothing."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self._held: str | None = None

    def push(self, piece: str) -> list[str]:
        before, self._held = self._between(), piece
        return before

    def finish(self) -> list[str]:
        return [] if self._held is None else [self._library.decode([self._held])]

    def _between(self) -> list[str]:
        return [] if self._held is None else [self._library.decode([self._held, ""])]


class _SuffixedText(_Suffixed):
    """The same where nothing follows: a word is passed on at once, the blank after it later."""

    def push(self, piece: str) -> list[str]:
        rest = self._rest(self._between())
        self._held = piece
        return [*rest, *self._certain()]

    def finish(self) -> list[str]:
        return self._rest(super().finish())

    def _certain(self) -> list[str]:
        between, last = self._between()[0], super().finish()[0]
        return [last] if between.startswith(last) else []

    def _rest(self, whole: list[str]) -> list[str]:
        """Return what is left of the held piece after its certain part."""
        return [whole[0][len("".join(self._certain())) :]] if whole else []


class _Bytes(Step):
    """Tokens such as <0xC3> are bytes; a run of them is text, as one piece unless `loose`."""

    def __init__(self, *, loose: bool) -> None:
        self._run, self._text, self._loose = Utf8(), "", loose

    def __copy__(self) -> "_Bytes":
        other = _Bytes(loose=self._loose)
        other._run, other._text = copy.copy(self._run), self._text
        return other

    def push(self, piece: str) -> list[str]:
        found = _BYTE.fullmatch(piece)
        if not found:
            return [*self.finish(), piece]
        made = self._run.push(bytes([int(found[1], 16)]))
        if not self._loose:
            self._text, made = self._text + "".join(made), []
        return made

    def finish(self) -> list[str]:
        text = "".join([self._text, *self._run.finish()])
        self._text = ""
        return [text] if text else []


class _ByteLevel(Utf8):
    """Pieces in the alphabet of byte-level vocabularies, and others as they stand."""

    def push(self, piece: Any) -> list[str]:
        return super().push(spelled_bytes(piece))


class _StrippedText(Step):
    """Takes up to `start` and `stop` times a character from the two ends of the text."""

    def __init__(self, content: str, start: int, stop: int) -> None:
        self._content = content
        self._left, self._stop = start, stop
        self._held = ""

    def push(self, piece: str) -> list[str]:
        while self._left and piece.startswith(self._content):
            piece, self._left = piece[1:], self._left - 1
        if piece:
            self._left = 0
        text = self._held + piece
        kept = len(text) - min(len(text) - len(text.rstrip(self._content)), self._stop)
        self._held = text[kept:]
        return [text[:kept]] if kept else []


class _Swapped(Step):
    """Puts one text for another, from left to right."""

    def __init__(self, old: str, new: str) -> None:
        self._old, self._new = old, new
        self._held = ""

    def push(self, piece: str) -> list[str]:
        text = self._held + piece
        *done, rest = text.split(self._old)
        keep = next(
            size
            for size in range(min(len(self._old) - 1, len(rest)), -1, -1)
            if rest.endswith(self._old[:size])
        )
        self._held = rest[len(rest) - keep :]
        made = self._new.join([*done, rest[: len(rest) - keep]])
        return [made] if made else []

    def finish(self) -> list[str]:
        held, self._held = self._held, ""
        return [held] if held else []


class _Whole(Step):
    """What looks at all pieces at once, or is not known here, waits for the end."""

    def __init__(self, library: Any, *, joined: bool) -> None:
        self._library = library
        self._joined = joined
        self._pieces: list[str] = []

    def __copy__(self) -> "_Whole":
        other = _Whole(self._library, joined=self._joined)
        other._pieces = list(self._pieces)
        return other

    def push(self, piece: str) -> list[str]:
        self._pieces.append(piece)
        return []

    def finish(self) -> list[str]:
        pieces = ["".join(self._pieces)] if self._joined else self._pieces
        with compiled("The tokenizer's decoder breaks down", TokenizerError):
            return [self._library.decode(pieces)]


def spelled_bytes(piece: str) -> bytes:
    """Return the bytes of a piece of a byte-level vocabulary; other text is its own UTF-8."""
    alphabet = byte_alphabet()
    try:
        return bytes(alphabet[character] for character in piece)
    except KeyError:
        return piece.encode("utf-8")


def _strip(piece: str, content: str, start: int, stop: int) -> str:
    left = min(len(piece) - len(piece.lstrip(content)), start)
    right = min(len(piece) - len(piece.rstrip(content)), stop, len(piece) - left)
    return piece[left : len(piece) - right]


def flat_steps(decoder: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return the parts of a decoder in order, without sequences of sequences."""
    if decoder is None or decoder.get("type") != "Sequence":
        return [] if decoder is None else [decoder]
    return [inner for each in decoder["decoders"] for inner in flat_steps(each)]


def _library(decoder: dict[str, Any]) -> Any:
    """Return a decoder of the library from its description."""
    empty = {"type": "BPE", "vocab": {}, "merges": []}
    whole = {"version": "1.0", "added_tokens": [], "decoder": decoder, "model": empty}
    others = ("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor")
    with compiled("The tokenizer's decoder cannot be read", TokenizerError):
        return tokenizers.Tokenizer.from_str(json.dumps(whole | dict.fromkeys(others))).decoder


def _mapping(decoder: dict[str, Any]) -> Callable[[str, bool], str]:
    """Return what the library makes of a single piece, remembered for each."""
    library = _library(decoder)
    known: dict[tuple[str, bool], str] = {}

    def become(piece: str, first: bool) -> str:
        if (piece, first) not in known:
            with compiled("The tokenizer's decoder breaks down", TokenizerError):
                known[piece, first] = library.decode([piece] if first else ["", piece])
        return known[piece, first]

    return become


def _mapped(decoder: dict[str, Any], loose: bool) -> Callable[[], Step]:
    become = _mapping(decoder)
    return lambda: _Mapped(become)


def _replaced(decoder: dict[str, Any], loose: bool) -> Callable[[], Step]:
    become = _mapping(decoder)
    return lambda: _Mapped(lambda piece, first: become(piece, True))


def _distinct(decoder: dict[str, Any], loose: bool) -> Callable[[], Step]:
    become = _mapping(decoder)
    return lambda: _Distinct(become)


def _suffixed(decoder: dict[str, Any], loose: bool) -> Callable[[], Step]:
    library = _library(decoder)
    return lambda: (_SuffixedText if loose else _Suffixed)(library)


_KINDS: dict[str, Callable[[dict[str, Any], bool], Callable[[], Step]]] = {
    "Metaspace": _mapped,
    "WordPiece": _mapped,
    "Replace": _replaced,
    "CTC": _distinct,
    "BPEDecoder": _suffixed,
    "ByteFallback": lambda decoder, loose: lambda: _Bytes(loose=loose),
    "ByteLevel": lambda decoder, loose: _ByteLevel,
}
