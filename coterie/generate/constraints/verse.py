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
from coterie.generate.constraints.metre import Line, Metrical, metrical
from coterie.generate.constraints.pieces import MARKS, Pieces, pieces_of
from coterie.language.verse.lines import key_of
from coterie.language.verse.metres import metre_of
from coterie.language.verse.scansion import scan
from coterie.language.verse.schemes import form_of
from coterie.tokenizer.interface import Tokenizer

FEMININE = 0.09  # of the sonnets' lines
_WHOLE = 5  # forms of so many lines are a poem, shorter ones a stanza


class Verse(ConstraintSettings):
    """Lines in a metre that rhyme by a scheme; the prompt's last stanza is their beginning."""

    kind: Literal["verse"] = "verse"
    form: str | None = Field(default=None, description="a named form, such as sonnet")
    metre: str | None = Field(default=None, description="a metre by name; of a form its own")
    rhyme: str | None = Field(default=None, description="a scheme in letters, such as ABABCC")
    lines: int | None = Field(
        default=None, ge=1, description="how many; of a form as many as it has"
    )
    budget: float | None = Field(
        default=None, ge=0, description="nats of licences a line may cost; by default as sonnets"
    )
    feminine: float = Field(
        default=FEMININE, ge=0, le=1, description="share of lines with a weak syllable at the end"
    )
    words: tuple[str, ...] = Field(default=(), description="words beside those of Shakespeare")
    tags: bool = Field(default=False, description="whether lines of tags may stand between")
    seed: int = Field(default=0, ge=0, description="of the lines' budgets and endings")

    @model_validator(mode="before")
    @classmethod
    def _form_alone(cls, value: Any) -> Any:
        return {"form": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _known(self) -> "Verse":
        named = form_of(self.form) if self.form else None
        if named and self.rhyme and form_of(self.rhyme).letters != named.letters:
            raise ValueError(f"{self.form} rhymes {named.letters}, not {self.rhyme}")
        scheme = self.letters
        if self.metre is None and not scheme:
            raise ValueError("name a form, a metre or a rhyme scheme")
        if metre_of(self.measure).syllables:
            raise ValueError("forms that count syllables alone are not written by constraint yet")
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
        whole = len(self.letters) if len(self.letters) >= _WHOLE else None
        return self.lines or whole

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
    """What a line must be like: its metre, what it may cost, on which words it may end."""

    metre: Metrical
    budget: float
    last: frozenset[str] | None
    finals: np.ndarray


class _Ways(NamedTuple):
    """What may stand next: classes within a line and at its end, as bits; nodes towards rhymes."""

    going_on: np.ndarray
    ending: np.ndarray
    bits: np.ndarray
    towards: np.ndarray


class VerseText:
    """One poem in the making."""

    def __init__(self, settings: Verse, tokenizer: Tokenizer, pieces: Pieces, prompt: str) -> None:
        self._settings, self._tokenizer, self._pieces = settings, tokenizer, pieces
        self._lexicon = lexicon_of(tuple(sorted(key_of(word) for word in settings.words)))
        self._rules_of: dict[tuple[str, ...], _Rules] = {}
        self._ways_of: dict[Any, _Ways] = {}
        self._kept: dict[Any, np.ndarray] = {}
        self._places = [self._begin(prompt)]

    def mask(self, logits: Float[Tensor, " V"]) -> Float[Tensor, " V"]:
        """Return the logits, −∞ for each token after which the poem could not be finished."""
        place = self._places[-1]
        allowed = torch.zeros(len(logits), dtype=torch.bool)
        if place.phase == "tag":
            allowed[: self._pieces.size] = True
            allowed[self._pieces.ends] = False
        else:
            allowed[self._allowed(place)] = True
        return logits.masked_fill(~allowed.to(logits.device), -torch.inf)

    def accept(self, token: int) -> None:
        place = self._places[-1]
        if token not in self._tokenizer.ends:
            text = self._tokenizer.token_bytes(token).decode("utf-8", "replace")
            for character in text:
                place = self._after(place, character)
        self._places.append(place)

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
        budget = drawn.choice(human_costs()) if settings.budget is None else settings.budget
        last = self._last_words(ends)
        pattern = drawn.choice(metre_of(settings.measure).of_line(index).patterns)
        falling = self._lexicon.falling
        finals = np.ones_like(falling) if last is None else self._lexicon.kinds_of(last)
        if (finals & (falling == feminine)).any():
            finals = finals & (falling == feminine)
        both = [metrical(self._lexicon, pattern, each) for each in (feminine, True)]
        metre = next((each for each in both if np.isfinite(each.cheapest(finals))), None)
        if metre is None:
            raise UserError(
                f"verse: no word that rhymes with “{ends[-1]}” ends a line of {pattern}."
            )
        budget = budget * len(pattern) / 10
        return _Rules(metre, max(budget, metre.cheapest(finals) + 0.5), last, finals)

    def _last_words(self, ends: tuple[str, ...]) -> frozenset[str] | None:
        """Return the words that the next line may end on; None: any."""
        letters = self._settings.letters
        if not letters:
            return None
        at = len(ends) % len(letters)
        stanza = ends[len(ends) - at :]
        partners = [word for word, letter in zip(stanza, letters, strict=False)
                    if letter == letters[at]]  # fmt: skip
        if not partners:
            wanted = letters[at:].count(letters[at]) - 1
            return self._lexicon.rhymed(2 * wanted + 1) if wanted else None
        for slant in (False, True):
            found = [self._lexicon.rhymes(word, slant) for word in partners]
            rhyming = frozenset.intersection(*found) - set(partners)
            if rhyming:  # no word twice at the end of lines, if others rhyme as well
                return rhyming - set(ends) or rhyming
        raise UserError(
            f"verse: no word of the lexicon rhymes with “{partners[-1]}”.",
            hint="Begin with another line, or name rhymes in verse.words.",
        )

    def _allowed(self, place: _Place) -> np.ndarray:
        """Return the tokens that may come next."""
        key = (place.line, place.phase, place.node, place.ends)
        known = self._kept.get(key)
        if known is None:
            known = self._kept[key] = np.array(sorted(self._find(place)), dtype=np.int64)
        return known

    def _find(self, place: _Place) -> set[int]:
        pieces, total = self._pieces, self._settings.total
        if place.phase == "open":
            done = total is not None and len(place.ends) >= total
            whole = not self._settings.letters or not len(place.ends) % len(self._settings.letters)
            may_end = done or (total is None and bool(place.ends) and whole)
            found = set(pieces.ends) if may_end else set()
            if done:
                return found
            blank = bool(place.ends) and whole and place.text != "\n"
            found |= {
                *(pieces.tags if self._settings.tags else ()),
                *(pieces.between.get(("", "\n"), []) if blank else []),
            }
            return found | self._beginning(place, pieces.opening)
        if place.phase == "space":
            return self._beginning(place, pieces.opening)
        found = set()
        if place.phase == "word":
            words = pieces.continuing(place.node)
            found |= set(words.tokens[self._fit(place, words.nodes)].tolist())
        on, last = self._may(place)
        paused = on and (place.phase == "mark" or self._may(place._replace(phase="mark"))[0])
        marks = [""] if place.phase == "mark" else ["", *MARKS]
        for (mark, blank), tokens in pieces.between.items():
            goes = paused if mark else on
            fits = {" ": goes, "\n": last, "": bool(mark) and (goes or last)}[blank]
            if mark in marks and fits:
                found |= set(tokens)
        if on:
            after = place._replace(line=self._said(place), phase="space", node=ROOT)
            found |= self._beginning(after, pieces.spaced)
        return found

    def _beginning(self, place: _Place, words: Any) -> set[int]:
        return set(words.tokens[self._fit(place, words.nodes)].tolist())

    def _fit(self, place: _Place, nodes: np.ndarray) -> np.ndarray:
        """Return at which nodes some word below can still stand here, bool."""
        ways = self._ways(place)
        return (self._lexicon.below[nodes] & ways.bits).any(1) | ways.towards[nodes]

    def _ways(self, place: _Place) -> "_Ways":
        """Return what may stand next."""
        key = (place.line, place.ends)
        if key not in self._ways_of:
            metre, budget, last, finals = self._rules(place.ends)
            going_on = metre.going_on(place.line, finals, budget)
            ending = metre.ending(place.line, budget) & finals
            inside = going_on if last is not None else going_on | ending
            towards = np.zeros(len(self._lexicon.children), dtype=bool)
            if last is not None and ending.any():
                towards = self._lexicon.towards(last, ending)
            self._ways_of[key] = _Ways(going_on, ending, self._lexicon.bits(inside), towards)
        return self._ways_of[key]

    def _may(self, place: _Place) -> tuple[bool, bool]:
        """Return whether the line may go on after the word that was written, and whether end."""
        kind = int(self._lexicon.word_class[place.node])
        if kind < 0:
            return False, False
        going_on, ending = self._ways(place)[:2]
        last = self._rules(place.ends).last
        word = key_of(place.text.split()[-1].strip(MARKS)) if place.text.split() else ""
        on = bool(going_on[kind])
        if on and place.phase == "mark":  # a pause has its price, which the next word pays
            after = self._ways(place._replace(line=self._said(place)))
            on = bool(after.bits.any() or after.towards[ROOT])
        return on, bool(ending[kind]) and (last is None or word in last)

    def _said(self, place: _Place) -> Line:
        """Return the line after the word that was written."""
        rules = self._rules(place.ends)
        kind = int(self._lexicon.word_class[place.node])
        after = rules.metre.after(place.line, kind, rules.finals, rules.budget)
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
            line = self._said(place)
            if not line.states:
                raise LookupError(character)
            return place._replace(line=line, phase="space", node=ROOT, text=text)
        first = place.phase in ("open", "space")
        node = self._lexicon.children[ROOT if first else place.node].get(character.lower())
        if node is None or place.phase == "mark":
            raise LookupError(character)
        return place._replace(phase="word", node=node, text=text)


@functools.cache
def human_costs() -> tuple[float, ...]:
    """Return what Shakespeare's sonnets cost line by line, in nats, those that scan."""
    sonnets = next(each for each in shakespeare() if each.name == "sonnets")
    lines = [line for line in sonnets.text.split("\n") if line and not line.startswith("<")]
    costs = [scan(line) for line in lines]
    return tuple(sorted(each.cost for each in costs if each.metrical))
