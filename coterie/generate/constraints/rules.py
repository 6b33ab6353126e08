"""What each line of a poem must be like: its metre, its budget and the words that may end it."""

import functools
import random
from typing import NamedTuple

import numpy as np

from coterie.data.corpus import shakespeare
from coterie.foundation.errors import UserError
from coterie.generate.constraints.lexicon import Lexicon
from coterie.generate.constraints.loops.tables import FAR, WHOLE, Aim
from coterie.generate.constraints.metre import Metrical, metrical
from coterie.language.verse.metres import metre_of
from coterie.language.verse.scansion import scan

_NEAR = 14  # lines, after which a rhyme may come back
_ROOM, _FAIR = 0.5, 2.0  # nats that a line may cost above the cheapest, and in all
_DEAREST = 3.0  # nats of the sonnets' lines that budgets are drawn from: what is left is filled


class Rules(NamedTuple):
    """What a line must be like.

    Attributes:
        metre: over the lexicon.
        aim: its budget, and what is likely to reach its end.
        welcome: how welcome each word is at its end, in parts of `WHOLE`, 0: not at all, int [W].
    """

    metre: Metrical
    aim: Aim
    welcome: np.ndarray


class Demands(NamedTuple):
    """What is asked of all lines.

    Attributes:
        letters: of the rhyme scheme; empty without rhymes.
        measure: the metre's name.
        budget: nats a line may cost; None: as the sonnets' lines.
        feminine: share of lines with a weak syllable at the end.
        licences: share of lines that may elide or stretch words.
        seed: of budgets and endings.
    """

    letters: str
    measure: str
    budget: float | None
    feminine: float
    licences: float
    seed: int

    def rules(self, lexicon: Lexicon, ends: tuple[str, ...]) -> Rules:
        """Return what the line after those that end so must be like.

        Raises:
            UserError: no word rhymes with one of them, or none that does ends such a line.
        """
        drawn = random.Random(f"{self.seed} {len(ends)} {' '.join(ends[-4:])}")
        feminine, licensed = drawn.random() < self.feminine, drawn.random() < self.licences
        budget = drawn.choice(human_costs()) if self.budget is None else self.budget
        welcome = self._last_words(lexicon, ends)
        pattern = drawn.choice(metre_of(self.measure).of_line(len(ends)).patterns)
        shares = np.bincount(lexicon.kinds, lexicon.counts * welcome, len(lexicon.classes))
        shares /= lexicon.counts.sum()
        metre, least, floors = None, np.inf, np.zeros(0)
        for way in ((feminine, licensed), (not feminine, licensed), (False, True), (True, True)):
            other = metrical(lexicon, pattern, *way)
            costs = other.floors(shares)
            if costs[0] + _ROOM < min(least, FAR / 2):
                metre, least, floors = other, float(costs[0]) + _ROOM, costs
            if least <= max(budget, _FAIR):  # else rhymes want another end than was drawn
                break
        if metre is None:
            raise UserError(
                f"verse: no word that rhymes with “{ends[-1]}” ends a line of {pattern}."
            )
        if pattern.isdigit() and self.budget is None:
            budget = 0.0  # of licences as such, which a number of syllables needs none of
        budget = max(budget * metre.machine.end / 10, least)
        parts = np.maximum(welcome * WHOLE, welcome > 0).astype(np.int64)
        return Rules(metre, metre.aim(budget, floors, shares), parts)

    def _last_words(self, lexicon: Lexicon, ends: tuple[str, ...]) -> np.ndarray:
        """Return how welcome each word is at the end of the next line, 0: not at all, [W]."""
        letters = self.letters
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


@functools.cache
def human_costs() -> tuple[float, ...]:
    """Return what Shakespeare's sonnets cost line by line, in nats, the dearest left aside."""
    sonnets = next(each for each in shakespeare() if each.name == "sonnets")
    lines = [line for line in sonnets.text.split("\n") if line and not line.startswith("<")]
    costs = [scan(line) for line in lines]
    return tuple(sorted(each.cost for each in costs if each.cost <= _DEAREST))
