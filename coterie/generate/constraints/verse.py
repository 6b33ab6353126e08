"""Verse: lines that scan in a metre and rhyme by a scheme, word for word, without a dead end.

Each line gets a budget of licences and perhaps a feminine ending, drawn as Shakespeare's sonnets
have them. A word is admitted if the line can still be finished within its budget on a word that
rhymes as the scheme asks (`metre`), by spelling out the words of a lexicon (`lexicon`), so that
characters, bytes and subwords serve alike.
"""

import contextlib
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from coterie.foundation.errors import UserError
from coterie.generate.constraints import loops
from coterie.generate.constraints.interface import ConstraintSettings
from coterie.generate.constraints.lexicon import ROOT, lexicon_of
from coterie.generate.constraints.loops.tables import LEAST, WHOLE, Words
from coterie.generate.constraints.metre import Line, Next
from coterie.generate.constraints.pieces import (
    MARKS,
    SAID,
    Pieces,
    between,
    last_word,
    pieces_of,
)
from coterie.generate.constraints.rules import Demands, Rules
from coterie.language.verse.lines import key_of
from coterie.language.verse.metres import metre_of
from coterie.language.verse.schemes import form_of
from coterie.language.verse.signatures import options
from coterie.tokenizer.interface import Tokenizer

FEMININE, LICENSED = 0.09, 0.18  # of the sonnets' lines
LONGER = 0.4  # nats a syllable: without them monosyllables are more than in any human's verse
_MOST = 64  # places that are remembered
_POEM = 5  # forms of so many lines are a poem, shorter ones a stanza
_FINE = 16  # parts of a use of a word
_TRIED, _LONGEST = 64, 20  # likeliest tokens tried as unknown words, and letters of one
_NONE = -1  # no word
_NOWHERE = Next(b"", np.zeros(0), np.zeros(0), 0.0)


class Verse(ConstraintSettings):
    """Lines in a metre that rhyme by a scheme; the prompt's last stanza is their beginning."""

    alone = "form"

    kind: Literal["verse"] = "verse"
    form: str | None = Field(default=None, description="a named form, such as sonnet")
    metre: str | None = Field(default=None, description="a metre by name; of a form its own")
    rhyme: str | None = Field(default=None, description="a scheme in letters, such as ABABCC")
    lines: int | None = Field(
        default=None, ge=1, description="how many; of a form as many as it has"
    )
    budget: float | None = Field(
        default=None, ge=0, description="nats a line may cost; by default as the sonnets' lines"
    )
    feminine: float = Field(
        default=FEMININE, ge=0, le=1, description="share of lines with a weak syllable at the end"
    )
    licences: float = Field(
        default=LICENSED, ge=0, le=1, description="share of lines that may elide or stretch words"
    )
    words: tuple[str, ...] = Field(default=(), description="words beside those of Shakespeare")
    unknown: Literal["barred", "allowed"] = Field(
        default="barred", description="other words, read by their spelling, within lines"
    )
    marks: str = Field(
        default=",.;:!?", description='between words: of these, and - for dashes, " for quotes'
    )
    long_words: float = Field(
        default=LONGER, description="nats by which words count more for each syllable but the first"
    )
    tags: bool = Field(default=False, description="whether lines of tags may stand between")
    look_ahead: float = Field(
        default=1.0, ge=0, description="how gladly what leaves good endings is chosen; 0: never"
    )
    seed: int = Field(default=0, ge=0, description="of the lines' budgets and endings")

    @model_validator(mode="after")
    def _known(self) -> "Verse":
        named = form_of(self.form) if self.form else None
        if named and self.rhyme and not named.letters.startswith(form_of(self.rhyme).letters):
            raise ValueError(f"{self.form} rhymes {named.letters}, not {self.rhyme}")
        scheme = self.letters
        if self.metre is None and not scheme:
            raise ValueError("name a form, a metre or a rhyme scheme")
        metre_of(self.measure)
        if not set(self.marks) <= set(MARKS):
            raise ValueError(f"marks are of {MARKS}, not {self.marks}")
        return self

    @property
    def letters(self) -> str:
        """The letter of each line of a stanza; empty without rhymes."""
        named = self.form or self.rhyme
        return form_of(named).letters if named else ""

    @property
    def measure(self) -> str:
        """The metre's name."""
        own = form_of(self.form).metre if self.form else None
        return self.metre or own or "iambic-pentameter"

    @property
    def demands(self) -> Demands:
        """What is asked of all lines."""
        return Demands(
            self.letters, self.measure, self.budget, self.feminine, self.licences, self.seed
        )

    @property
    def total(self) -> int | None:
        """How many lines the text has; None: any number of whole stanzas."""
        whole = len(self.letters) if len(self.letters) >= _POEM else None
        return self.lines or whole or len(metre_of(self.measure).syllables) or None

    def build(self, tokenizer: Tokenizer, prompt: Sequence[int]) -> "VerseText":
        """Return the constraint of one text.

        Raises:
            UserError: the prompt's last line does not fit, or nothing rhymes with its lines.
        """
        words = tuple(sorted(key_of(word) for word in self.words))
        pieces = pieces_of(tokenizer, lexicon_of(words), self.marks)
        last = max((at for at, each in enumerate(prompt) if each in tokenizer.ends), default=-1)
        return VerseText(self, tokenizer, pieces, tokenizer.decode(prompt[last + 1 :]))


class _Place(NamedTuple):
    """Where a text stands.

    Attributes:
        ends: the last word of each line of the poem so far.
        line: the running line as metre hears it, without the word that has begun.
        phase: `open` before a line's first word, `tag` in one, `word` in one; else as `pieces` has
            what stands between words.
        node: of the word that has begun; −1: it is an unknown one.
        text: the running line as written.
    """

    ends: tuple[str, ...]
    line: Line
    phase: str
    node: int = ROOT
    text: str = ""


class _May(NamedTuple):
    """What the chances are after a word: if others follow, the same behind a pause, if it ends."""

    on: float
    paused: float
    last: float


class VerseText:
    """One poem in the making."""

    def __init__(self, settings: Verse, tokenizer: Tokenizer, pieces: Pieces, prompt: str) -> None:
        self._settings, self._tokenizer, self._pieces = settings, tokenizer, pieces
        self._demands = settings.demands
        lexicon = lexicon_of(tuple(sorted(key_of(word) for word in settings.words)))
        self._lexicon = lexicon
        self._gains = np.exp(settings.long_words * (lexicon.syllables - 1))
        self._uses = np.round(lexicon.counts * self._gains * _FINE).astype(np.int64)
        self._rules_of: dict[tuple[str, ...], Rules] = {}
        self._next_of: dict[Any, Next] = {}
        self._ahead_of: dict[Any, tuple[Next, Next]] = {}
        self._sums_of: dict[Any, np.ndarray] = {}
        self._places = [self._begin(prompt)]

    def mask(self, logits: Float[Tensor, " V"]) -> Float[Tensor, " V"]:
        """Return the logits, −∞ for each token after which the poem could not be finished.

        To the others is added the logarithm of how likely, after them, words drawn by how frequent
        they are end the line well, beside how likely that is now.
        """
        place, pieces = self._places[-1], self._pieces
        added = np.full(len(logits), -np.inf, dtype=np.float32)
        if place.phase == "tag":
            added[: pieces.size] = 0.0
            added[pieces.ends] = -np.inf
        else:
            self._weigh(place, added)
            if self._settings.unknown == "allowed":
                self._try_unknown(place, logits.float().cpu().numpy(), added)
        return logits + torch.from_numpy(added).to(logits)

    def accept(self, token: int) -> None:
        place = self._places[-1]
        if token not in self._tokenizer.ends:
            place = self._after_all(place, self._pieces.texts[token])
        self._places.append(place)

    def leads_nowhere(self, token: int) -> bool:
        """Whether a barred token spells words that are known, so that only the rest is lacking."""
        place, text = self._places[-1], self._pieces.texts[token]
        if place.phase == "tag" or token in self._tokenizer.ends or not set(text).isdisjoint("<\n"):
            return False
        try:
            self._after_all(place, text)
        except LookupError:
            return False
        return True

    def rollback(self, count: int) -> None:
        if count:
            del self._places[-count:]

    def __deepcopy__(self, memo: dict[int, Any]) -> "VerseText":
        other = object.__new__(VerseText)
        other.__dict__ = {**self.__dict__, "_places": list(self._places)}
        return other

    def _begin(self, prompt: str) -> _Place:
        """Return the place after a prompt, whose last stanza belongs to the poem."""
        place = _Place((), self._fresh(()), "open")
        *lines, rest = prompt.split("\n")
        for line in lines:
            bare = line.rpartition(">")[2].strip()
            ends = (*place.ends, last_word(bare)) if bare else ()
            place = _Place(ends, self._fresh(ends), "open")
        for at, character in enumerate(rest):
            try:
                place = self._after(place, character)
            except LookupError:
                begun = rest[rest.rfind(" ", 0, at) + 1 :].partition(" ")[0]
                raise UserError(
                    f"verse: the prompt's last line, “{rest}”, leaves the metre or the lexicon at "
                    f"“{begun}”.",
                    hint="End the prompt with a line's end, or name the word in verse.words.",
                ) from None
        return place

    def _fresh(self, ends: tuple[str, ...]) -> Line:
        return self._rules(ends).metre.start

    def _rules(self, ends: tuple[str, ...]) -> Rules:
        """Return what the line after those that end so must be like."""
        known = self._rules_of.get(ends)
        if known is None:
            known = self._demands.rules(self._lexicon, ends)
            _keep(self._rules_of, ends, known)
        return known

    def _weigh(self, place: _Place, added: np.ndarray) -> None:
        """Put what is added to the logits of tokens that may come next."""
        pieces = self._pieces
        if place.phase == "open":
            self._weigh_opening(place, added)
        elif place.phase in ("space", "quote"):
            self._fit(place, pieces.opening, added)
            if place.phase == "space" and len(pieces.between["space"][0].tokens):
                self._put("space", [self._ahead(place)[1].value], added)
        else:
            may, gain = self._may(place), self._gain(place)
            if (may.on if place.phase == "word" else may.paused) and place.phase != "half":
                line = self._ahead(place)[place.phase != "word"].line
                words = pieces.opening if place.phase == "dash" else pieces.spaced
                self._fit(place._replace(line=line), words, added, gain)
            self._put(place.phase, self._chances(place, may, gain), added)
            if place.phase == "word" and place.node >= 0:
                self._fit(place, pieces.continuing(place.node), added)
            if place.phase == "word" and place.text.endswith("-"):
                half = self._halved(place)
                self._put("half", self._chances(half, self._may(half), self._gain(half)), added)

    def _weigh_opening(self, place: _Place, added: np.ndarray) -> None:
        pieces, total, letters = self._pieces, self._settings.total, self._settings.letters
        done = total is not None and len(place.ends) >= total
        whole = not letters or not len(place.ends) % len(letters)
        if not done:
            self._fit(place, pieces.opening, added, 1 / self._next(place).value)
            added[pieces.between["open"][0].tokens] = 0.0
        if done or (total is None and place.ends and whole):
            added[pieces.ends] = 0.0
        if self._settings.tags and not done:
            added[pieces.tags] = 0.0
        if place.ends and whole and place.text != "\n" and not done:
            added[pieces.newline] = 0.0

    def _chances(self, place: _Place, may: _May, gain: float) -> list[float]:
        """Return the chances of where marks, blanks and line ends lead after a word."""
        found = []
        for phase, pauses in self._pieces.between[place.phase][1]:
            on = may.paused if pauses else may.on
            if phase == "open":
                on = may.last
            elif phase not in ("space", "quote"):
                on = max(on, may.last)
            found.append(on * gain)
        return found

    def _put(self, phase: str, chances: list[float], added: np.ndarray) -> None:
        words, gladly = self._pieces.between[phase][0], self._settings.look_ahead
        loops.put(words, np.array(chances), gladly, added)

    def _fit(self, place: _Place, words: Words, added: np.ndarray, scale: float = 1.0) -> None:
        """Weigh the tokens towards words of which some can stand here."""
        loops.fit(words, self._sums(place), scale / _FINE, self._settings.look_ahead, added)

    def _sums(self, place: _Place) -> np.ndarray:
        """Return how often words before each stand here and end well, in parts, int64 [W + 1]."""
        key = (place.line, place.ends)
        known = self._sums_of.get(key)
        if known is None:
            kinds, after = self._lexicon.kinds, self._next(place)
            welcome, known = self._rules(place.ends).welcome, np.zeros(len(kinds) + 1, np.int64)
            loops.running(after.going, after.ending, welcome, kinds, self._uses, known)
            _keep(self._sums_of, key, known)
        return known

    def _next(self, place: _Place) -> Next:
        """Return what may stand next where no word has begun."""
        key = (place.line, place.ends)
        known = self._next_of.get(key)
        if known is None:
            rules = self._rules(place.ends)
            known = rules.metre.look(place.line, rules.aim)
            _keep(self._next_of, key, known)
        return known

    def _ahead(self, place: _Place) -> tuple[Next, Next]:
        """Return what may stand after the word that was written, without a pause and with one."""
        word = self._lexicon.word[place.node] if place.phase in SAID else -1
        kind = int(self._lexicon.kinds[word]) if word >= 0 else _NONE
        if place.phase in SAID and place.node < 0:
            kind = last_word(place.text)
        elif place.phase in SAID and word < 0:
            return _NOWHERE, _NOWHERE
        key = (place.line, place.ends, kind)
        known = self._ahead_of.get(key)
        if known is None:
            rules = self._rules(place.ends)
            if isinstance(kind, str):
                said = options(kind)
                one, two = (
                    rules.metre.look(
                        rules.metre.after_said(place.line, said, rules.aim, pause), rules.aim
                    )
                    for pause in (False, True)
                )
                known = one, two
            else:
                known = rules.metre.ahead(place.line, kind, rules.aim)
            _keep(self._ahead_of, key, known)
            for each in known:
                _keep(self._next_of, (each.line, place.ends), each)
        return known

    def _may(self, place: _Place) -> _May:
        """Return what the chances are after the word that was written; 0: it may not."""
        on, paused = self._ahead(place)
        word = int(self._lexicon.word[place.node]) if place.node >= 0 else -1
        if word < 0:  # an unknown one, if any, ends no line
            return _May(on.value, paused.value, 0.0)
        ends = self._next(place).ending[self._lexicon.kinds[word]]
        last = float(ends * self._rules(place.ends).welcome[word] / WHOLE)
        return _May(on.value, paused.value, last)

    def _gain(self, place: _Place) -> float:
        word = int(self._lexicon.word[place.node]) if place.node >= 0 else -1
        return float(self._gains[word]) if word >= 0 else 1.0

    def _halved(self, place: _Place) -> _Place:
        """Return the place where a hyphen that was written is half a dash."""
        node = self._lexicon.node(last_word(place.text))
        return place._replace(phase="half", node=ROOT if node is None else node)

    def _try_unknown(
        self, place: _Place, logits: Float[np.ndarray, " V"], added: Float[np.ndarray, " V"]
    ) -> None:
        """Admit those of the likeliest tokens that spell a word that could stand as it is."""
        likely = np.argsort(-logits)[:_TRIED]
        for token in likely[np.isneginf(added[likely])].tolist():
            text = self._pieces.letters.get(token, "")
            if place.phase == "word" and text[:1].isupper():
                continue
            with contextlib.suppress(LookupError):
                after = self._after_all(place, text)
                word = last_word(after.text) if after.phase == "word" and after.node < 0 else ""
                if text and 0 < len(word) <= _LONGEST:
                    value = self._may(after).on * self._gain(place)
                    if value:
                        added[token] = self._settings.look_ahead * np.log(max(value, LEAST))

    def _after_all(self, place: _Place, text: str) -> _Place:
        """Return the place after some characters.

        Raises:
            LookupError: they cannot stand here.
        """
        at, children = 0, self._lexicon.children
        while at < len(text):
            node, begin = place.node, at
            if place.phase == "word" and node >= 0:
                while at < len(text) and (below := children[node].get(text[at].lower())):
                    node, at = below, at + 1
            if at > begin:
                place = place._replace(node=node, text=place.text + text[begin:at])
            else:
                place, at = self._after(place, text[at]), at + 1
        return place

    def _after(self, place: _Place, character: str) -> _Place:
        """Return the place after a character.

        Raises:
            LookupError: it cannot stand here.
        """
        text = place.text + character
        if place.phase == "tag":
            if character == "\n":
                return place._replace(phase="open", text="")
            phase = "open" if text.endswith("</STAGE> ") else "tag"
            return place._replace(phase=phase, text="" if phase == "open" else text)
        if place.phase == "open" and character in "<\n":
            return place._replace(phase="tag" if character == "<" else "open", text=text)
        word, letter = place.phase == "word", character.lower()
        if word and character == "-" and place.text.endswith("-"):
            place = self._halved(place)
        elif word or place.phase in ("open", "space", "quote", "dash"):
            strange = word and place.node < 0
            children = self._lexicon.children[place.node if word else ROOT]
            node = None if strange else children.get(letter)
            if node is None and letter.isascii() and letter.isalpha():
                node = -1 if self._settings.unknown == "allowed" else None
            if node is not None:
                line = self._ahead(place)[1].line if place.phase == "dash" else place.line
                return place._replace(line=line, phase="word", node=node, text=text)
        phase = between(place.phase, character)
        if phase is None:
            raise LookupError(character)
        if phase == "open":
            ends = (*place.ends, last_word(place.text))
            return _Place(ends, self._fresh(ends), "open")
        line = place.line
        if phase == "space":
            line = self._ahead(place)[place.phase != "word"].line
        elif phase == "quote" and place.phase == "space":
            line = self._ahead(place)[1].line
        if not line:
            raise LookupError(character)
        node = place.node if phase in SAID else ROOT
        return place._replace(line=line, phase=phase, node=node, text=text)


def _keep(memory: dict[Any, Any], key: Any, value: Any) -> None:
    """Remember something; when there is much, all that is older is forgotten."""
    if len(memory) > _MOST:
        memory.clear()
    memory[key] = value
