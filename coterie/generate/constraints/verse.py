"""Verse: lines that scan in a metre and rhyme by a scheme, word for word, without a dead end.

Each line gets a budget of licences and perhaps a feminine ending, drawn as Shakespeare's sonnets
have them. A word is admitted if the line can still be finished within its budget on a word that
rhymes as the scheme asks (`metre`), by spelling out the words of a lexicon (`lexicon`), so that
characters, bytes and subwords serve alike.
"""

import functools
import random
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from coterie.data.corpus import shakespeare
from coterie.foundation.errors import UserError
from coterie.generate.constraints.interface import ConstraintSettings
from coterie.generate.constraints.lexicon import ROOT, lexicon_of
from coterie.generate.constraints.metre import Aim, Line, Metrical, metrical
from coterie.generate.constraints.pieces import MARKS, WHOLE, Pieces, Words, pieces_of
from coterie.language.verse.lines import key_of
from coterie.language.verse.metres import metre_of
from coterie.language.verse.scansion import scan
from coterie.language.verse.schemes import form_of
from coterie.tokenizer.interface import Tokenizer

FEMININE, LICENSED = 0.09, 0.18  # of the sonnets' lines
_LEAST = 1e-6  # the chance of what is seldom, but possible
_MOST = 512  # places that are remembered
_POEM = 5  # forms of so many lines are a poem, shorter ones a stanza
_NEAR = 14  # lines, after which a rhyme may come back
_ROOM, _FAIR = 0.5, 2.0  # nats that a line may cost above the cheapest, and in all
_DEAREST = 3.0  # nats of the sonnets' lines that budgets are drawn from: what is left is filled


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
        pieces = pieces_of(tokenizer, lexicon_of(words))
        last = max((at for at, each in enumerate(prompt) if each in tokenizer.ends), default=-1)
        return VerseText(self, tokenizer, pieces, tokenizer.decode(prompt[last + 1 :]))


class _Place(NamedTuple):
    """Where a text stands.

    Attributes:
        ends: the last word of each line of the poem so far.
        line: the running line as metre hears it, without the word that has begun.
        phase: `open` before a line's first word, `tag` in one, `space` before another word,
            `word` in one, `mark` after a mark.
        node: of the word that has begun.
        text: the running line as written.
    """

    ends: tuple[str, ...]
    line: Line
    phase: str
    node: int = ROOT
    text: str = ""


class _Rules(NamedTuple):
    """What a line must be like.

    Attributes:
        metre: over the lexicon.
        aim: its budget, and what is likely to reach its end.
        finals: which classes may end it, bool [K].
        shares: of each class how much of a text is words that may end the line, as welcome, [K].
        last: the words that may end it.
        welcome: how welcome each word is at its end, in parts of `WHOLE`, 0: not at all, int [W].
    """

    metre: Metrical
    aim: Aim
    finals: np.ndarray
    shares: np.ndarray
    last: np.ndarray
    welcome: np.ndarray


class _Ways(NamedTuple):
    """What may stand next.

    Attributes:
        going_on: of each class how likely the line ends well when others follow, in parts of
            `WHOLE`; 0: none can, int [K].
        ending: which may end it, bool [K].
        value: how likely the line ends well; 0: it cannot.
    """

    going_on: np.ndarray
    ending: np.ndarray
    value: float


class _Next(NamedTuple):
    """Tokens that may come next, with what each makes of the chances."""

    tokens: np.ndarray
    weights: np.ndarray


class VerseText:
    """One poem in the making."""

    def __init__(self, settings: Verse, tokenizer: Tokenizer, pieces: Pieces, prompt: str) -> None:
        self._settings, self._tokenizer, self._pieces = settings, tokenizer, pieces
        self._lexicon = lexicon_of(tuple(sorted(key_of(word) for word in settings.words)))
        self._rules_of: dict[tuple[str, ...], _Rules] = {}
        self._ways_of: dict[Any, _Ways] = {}
        self._running_of: dict[Any, np.ndarray] = {}
        self._kept: dict[Any, tuple[np.ndarray, np.ndarray]] = {}
        self._places = [self._begin(prompt)]

    def mask(self, logits: Float[Tensor, " V"]) -> Float[Tensor, " V"]:
        """Return the logits, −∞ for each token after which the poem could not be finished.

        To the others is added the logarithm of how likely, after them, words drawn by how frequent
        they are end the line well, beside how likely that is now.
        """
        place, row = self._places[-1], logits.float().cpu().numpy()
        masked = np.full_like(row, -np.inf)
        if place.phase == "tag":
            masked[: self._pieces.size] = row[: self._pieces.size]
            masked[self._pieces.ends] = -np.inf
        else:
            tokens, weights = self._allowed(place)
            masked[tokens] = row[tokens] + weights
        return torch.from_numpy(masked).to(logits)

    def accept(self, token: int) -> None:
        place = self._places[-1]
        if token not in self._tokenizer.ends:
            text = self._tokenizer.token_bytes(token).decode("utf-8", "replace")
            for character in text:
                place = self._after(place, character)
        self._places.append(place)

    def leads_nowhere(self, token: int) -> bool:
        """Whether a barred token spells words that are known, so that only the rest is lacking."""
        place, text = (
            self._places[-1],
            self._tokenizer.token_bytes(token).decode("utf-8", "replace"),
        )
        if place.phase == "tag" or token in self._tokenizer.ends or not set(text).isdisjoint("<\n"):
            return False
        try:
            for character in text:
                place = self._after(place, character)
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
            if not bare:
                place = _Place((), self._fresh(()), "open")
            else:
                ends = (*place.ends, key_of(bare.split()[-1].strip(MARKS)))
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

    def _rules(self, ends: tuple[str, ...]) -> _Rules:
        """Return what the line after those that end so must be like."""
        known = self._rules_of.get(ends)
        if known is None:
            known = self._rules_of[ends] = self._make_rules(ends)
        return known

    def _make_rules(self, ends: tuple[str, ...]) -> _Rules:
        settings, index = self._settings, len(ends)
        drawn = random.Random(f"{settings.seed} {index} {' '.join(ends[-4:])}")
        feminine = drawn.random() < settings.feminine
        licensed = drawn.random() < settings.licences
        budget = drawn.choice(human_costs()) if settings.budget is None else settings.budget
        welcome = self._last_words(ends)
        pattern = drawn.choice(metre_of(settings.measure).of_line(index).patterns)
        lexicon = self._lexicon
        finals = np.bincount(lexicon.kinds, welcome, len(lexicon.classes)) > 0
        metre, least = None, np.inf
        for way in ((feminine, licensed), (not feminine, licensed), (False, True), (True, True)):
            other = metrical(lexicon, pattern, *way)
            cost = other.cheapest(finals) + _ROOM
            if cost < least:
                metre, least = other, cost
            if least <= max(budget, _FAIR):  # else rhymes want another end than was drawn
                break
        if metre is None:
            raise UserError(
                f"verse: no word that rhymes with “{ends[-1]}” ends a line of {pattern}."
            )
        if pattern.isdigit() and settings.budget is None:
            budget = 0.0  # of licences as such, which a number of syllables needs none of
        budget = max(budget * metre.machine.end / 10, least)
        last = np.flatnonzero(welcome)
        shares = np.bincount(lexicon.kinds, lexicon.counts * welcome, len(lexicon.classes))
        shares /= lexicon.counts.sum()
        parts = np.maximum(welcome * WHOLE, welcome > 0).astype(np.int64)
        return _Rules(metre, metre.aim(budget, shares), finals, shares, last, parts)

    def _last_words(self, ends: tuple[str, ...]) -> np.ndarray:
        """Return how welcome each word is at the end of the next line, 0: not at all, [W]."""
        letters, lexicon = self._settings.letters, self._lexicon
        at = len(ends) % len(letters) if letters else 0
        stanza = ends[len(ends) - at :]
        partners = [word for word, letter in zip(stanza, letters, strict=False)
                    if letter == letters[at]]  # fmt: skip
        if not partners:
            wanted = letters[at:].count(letters[at]) - 1 if letters else 0
            ease = np.ones(len(lexicon.words))  # tempered, lest all end on what rhymes with "me"
            ease = np.sqrt(lexicon.rhyming(2 * wanted + 1)) if wanted else ease
            sounds = frozenset[str]().union(*map(lexicon.rhymes, ends[-_NEAR:] if letters else ()))
            for barred in ({*ends, *sounds}, {*ends[-_NEAR:]}):  # what rhymes with none yet, or
                left = ease * ~lexicon.chosen(barred)  # is at least another word
                if left.any():
                    return left
            return ease
        for slant in (False, True):
            found = [lexicon.rhymes(word, slant) for word in partners]
            rhyming = frozenset.intersection(*found) - set(partners)
            if rhyming:  # no word twice at the end of lines, if others rhyme as well
                return lexicon.chosen(rhyming - set(ends) or rhyming).astype(float)
        raise UserError(
            f"verse: no word of the lexicon rhymes with “{partners[-1]}”.",
            hint="Begin with another line, or name rhymes in verse.words.",
        )

    def _allowed(self, place: _Place) -> tuple[np.ndarray, np.ndarray]:
        """Return the tokens that may come next, each with what is added to its logit."""
        key = (place.line, place.phase, place.node, place.ends)
        known = self._kept.get(key)
        if known is None:
            found = self._find(place)
            tokens = np.concatenate([each.tokens for each in found])
            weights = np.concatenate([each.weights for each in found]).astype(np.float32)
            weights = self._settings.look_ahead * np.log(np.maximum(weights, _LEAST))
            for memory in (self._kept, self._running_of, self._ways_of, self._rules_of):
                if len(memory) > _MOST:
                    memory.clear()
            known = self._kept[key] = tokens, weights
        return known

    def _find(self, place: _Place) -> list[_Next]:
        pieces, total = self._pieces, self._settings.total
        if place.phase == "open":
            done = total is not None and len(place.ends) >= total
            whole = not self._settings.letters or not len(place.ends) % len(self._settings.letters)
            may_end = done or (total is None and bool(place.ends) and whole)
            found = [_all(pieces.ends, 1.0)] if may_end else []
            if done:
                return found
            if self._settings.tags:
                found.append(_all(pieces.tags, 1.0))
            if place.ends and whole and place.text != "\n":
                found.append(_all(pieces.between.get((False, "\n"), []), 1.0))
            return [*found, self._fit(place, pieces.opening, 1 / self._ways(place).value)]
        if place.phase == "space":
            return [self._fit(place, pieces.opening)]
        found = []
        if place.phase == "word":
            found.append(self._fit(place, pieces.continuing(place.node)))
        on, last = self._may(place)
        paused = on if place.phase == "mark" else self._may(place._replace(phase="mark"))[0]
        for (mark, blank), tokens in pieces.between.items():
            goes = paused if mark else on
            value = {" ": goes, "\n": last, "": max(goes, last) if mark else 0.0}[blank]
            if value and not (mark and place.phase == "mark"):
                found.append(_all(tokens, value))
        if on:
            after = place._replace(line=self._said(place), phase="space", node=ROOT)
            found.append(self._fit(after, pieces.spaced))
        return found

    def _fit(self, place: _Place, words: Words, scale: float = 1.0) -> _Next:
        """Return the tokens towards words of which some can stand here, with their chances."""
        running = self._running(place)
        chances = (running[words.after] - running[words.first]) * (scale * words.parts)
        fits = np.flatnonzero(chances)
        return _Next(words.tokens[fits], chances[fits])

    def _running(self, place: _Place) -> np.ndarray:
        """Return how often words before each stand here and end well, in parts, int64 [W + 1]."""
        key = (place.line, place.ends)
        if key not in self._running_of:
            rules, lexicon, ways = self._rules(place.ends), self._lexicon, self._ways(place)
            chances = ways.going_on[lexicon.kinds]
            if ways.ending.any():
                last = rules.last
                chances[last] += ways.ending[lexicon.kinds[last]] * rules.welcome[last]
            self._running_of[key] = running = np.zeros(len(chances) + 1, dtype=np.int64)
            np.cumsum(chances * lexicon.counts, out=running[1:])
        return self._running_of[key]

    def _ways(self, place: _Place) -> _Ways:
        """Return what may stand next."""
        key = (place.line, place.ends)
        if key not in self._ways_of:
            rules = self._rules(place.ends)
            going_on, ending, promise = rules.metre.look(place.line, rules.aim)
            ending &= rules.finals
            promise = np.where(going_on, np.maximum(promise, _LEAST), 0.0)
            value = float(promise @ self._lexicon.shares + ending @ rules.shares)
            parts = (promise * WHOLE).astype(np.int64)
            self._ways_of[key] = _Ways(parts, ending, value)
        return self._ways_of[key]

    def _may(self, place: _Place) -> tuple[float, float]:
        """Return what the chances are if the word that was written goes before others, or ends.

        0 says that it may not.
        """
        word = int(self._lexicon.word[place.node])
        if word < 0:
            return 0.0, 0.0
        kind = int(self._lexicon.kinds[word])
        ways, rules, on = self._ways(place), self._rules(place.ends), 0.0
        if ways.going_on[kind]:  # a pause has its price, which the next word pays
            on = self._ways(place._replace(line=self._said(place))).value
        return on, float(ways.ending[kind] * rules.welcome[word] / WHOLE)

    def _said(self, place: _Place) -> Line:
        """Return the line after the word that was written."""
        rules = self._rules(place.ends)
        kind = int(self._lexicon.kinds[self._lexicon.word[place.node]])
        after = rules.metre.after(place.line, kind, rules.aim)
        return after._replace(pause=place.phase == "mark")

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
        if character == "\n":
            word = key_of(place.text.split()[-1].strip(MARKS))
            ends = (*place.ends, word)
            return _Place(ends, self._fresh(ends), "open")
        if character in MARKS and place.phase == "word":
            return place._replace(phase="mark", text=text)
        if character == " " and place.phase in ("word", "mark"):
            line = self._said(place) if self._lexicon.word[place.node] >= 0 else Line(())
            if not line.states:
                raise LookupError(character)
            return place._replace(line=line, phase="space", node=ROOT, text=text)
        first = place.phase in ("open", "space")
        node = self._lexicon.children[ROOT if first else place.node].get(character.lower())
        if node is None or place.phase == "mark":
            raise LookupError(character)
        return place._replace(phase="word", node=node, text=text)


def _all(tokens: Sequence[int], chance: float) -> _Next:
    return _Next(np.array(tokens, dtype=np.int64), np.full(len(tokens), chance))


@functools.cache
def human_costs() -> tuple[float, ...]:
    """Return what Shakespeare's sonnets cost line by line, in nats, the dearest left aside."""
    sonnets = next(each for each in shakespeare() if each.name == "sonnets")
    lines = [line for line in sonnets.text.split("\n") if line and not line.startswith("<")]
    costs = [scan(line) for line in lines]
    return tuple(sorted(each.cost for each in costs if each.cost <= _DEAREST))
