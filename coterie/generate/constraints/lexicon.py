"""The words that constrained verse is made of, as a tree of letters, with what metre hears of each.

Words that are said alike are one class (`signatures.options`). The words below a node of the tree
stand together, so that two look-ups in running sums tell whether a beginning of a word can still
become one that fits, and how much of what is written so goes on to fit.
"""

import functools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np

from coterie.data.corpus import shakespeare
from coterie.language.verse.lines import WORD, key_of
from coterie.language.verse.rhyme import endings, rhyme
from coterie.language.verse.signatures import Options, options

ROOT = 0
MOST = 256  # classes: 99.7 % of all words; the others have many ways to be said
_TAGGED = re.compile(r"<(\w+)>[^<>]*</\1>")


class Lexicon:
    """Words, in lower case with plain apostrophes.

    Attributes:
        classes: ways to say a word, the most frequent first.
        words: in the order of the alphabet, so that those below a node stand together.
        counts: of each word how often it is used, int64 [W].
        syllables: of each word as it is said at first, int64 [W].
        kinds: of each word its class, int64 [W].
        shares: of each class how much of a text it is, float64 [K].
        children: of each node, by letter.
        word: of each node the word that ends there, −1 for none, int64 [N].
        first: of each node the first word at or below it, int64 [N].
        after: of each node the word after the last one below it, int64 [N].
    """

    def __init__(self, counts: Counter[str]) -> None:
        said = {word: options(word) for word in counts}
        weights: Counter[Options] = Counter()
        for word, count in counts.items():
            weights[said[word]] += count
        self.classes = [each for each, _ in weights.most_common(MOST)]
        number = {each: index for index, each in enumerate(self.classes)}
        self.words = sorted(word for word in counts if said[word] in number)
        self.counts = np.array([counts[word] for word in self.words])
        self.syllables = np.array([len(said[word][0].signature) for word in self.words])
        self.kinds = np.array([number[said[word]] for word in self.words])
        self.shares = np.bincount(self.kinds, self.counts) / self.counts.sum()
        self._index = {word: index for index, word in enumerate(self.words)}
        self.children: list[dict[str, int]] = [{}]
        ends, first, after = [-1], [0], [0]
        for index, word in enumerate(self.words):
            node = ROOT
            for letter in word:
                after[node] = index + 1
                below = self.children[node].setdefault(letter, len(self.children))
                if below == len(self.children):
                    self.children.append({})
                    ends.append(-1)
                    first.append(index)
                    after.append(index)
                node = below
            ends[node], after[node] = index, index + 1
        self.word, self.first, self.after = map(np.array, (ends, first, after))

    @functools.cached_property
    def _by_ending(self) -> dict[tuple[str, ...], list[str]]:
        found = defaultdict(list)
        for word in self.words:
            for ending in endings(word.strip("'")):
                if ending.cost == 0:
                    found[ending.rest].append(word)
        return found

    @functools.cached_property
    def plain(self) -> list[Options]:
        """The classes' ways to say a word without a licence."""
        return [Options(each for each in said if not each.licences) for said in self.classes]

    def node(self, letters: str) -> int | None:
        """Return the node of a beginning of words."""
        node = ROOT
        for letter in letters:
            found = self.children[node].get(letter)
            if found is None:
                return None
            node = found
        return node

    @functools.cache  # noqa: B019 - lexicons live as long as the process
    def rhymes(self, word: str, slant: bool = False) -> frozenset[str]:
        """Return the words that rhyme with one: perfectly, or at least nearly."""
        rests = {ending.rest for ending in endings(word.strip("'")) if ending.cost == 0}
        near = self.words if slant else {w for rest in rests for w in self._by_ending[rest]}
        kinds = ("perfect", "slant") if slant else ("perfect",)
        return frozenset(other for other in near if rhyme(word, other).kind in kinds)

    @functools.cache  # noqa: B019
    def rhyming(self, fewest: int) -> np.ndarray:
        """Return how often words stand in a text that rhyme perfectly with each, by their sounds.

        Args:
            fewest: with less words than that, 0.
        """
        sounds = [endings(word.strip("'"))[0] for word in self.words]
        words, uses = Counter[Any](), Counter[Any]()
        for ending, count in zip(sounds, self.counts, strict=True):
            for key in (ending.rest, ending[:2]):
                words[key] += 1
                uses[key] += count
        return np.array([
            (uses[each.rest] - uses[each[:2]]) * (words[each.rest] - words[each[:2]] >= fewest)
            for each in sounds
        ]) / self.counts.sum()  # fmt: skip

    def chosen(self, words: Iterable[str]) -> np.ndarray:
        """Return which words are among some, bool [W]; those it lacks are passed over."""
        found = np.zeros(len(self.words), dtype=bool)
        found[[self._index[word] for word in words if word in self._index]] = True
        return found


def counted(texts: Iterable[str]) -> Counter[str]:
    """Return how often each word stands in texts, marks and what is in them left aside."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(map(key_of, WORD.findall(_TAGGED.sub("", text))))
    return counts


@functools.cache
def shakespeares() -> Counter[str]:
    """Return the words that Shakespeare uses more than once (16,000)."""
    counts = counted(document.text for document in shakespeare())
    quoted = {word for word in counts if counts[word] < counts.get(word.strip("'"), 0)}
    return Counter({w: count for w, count in counts.items() if count > 1 and w not in quoted})


@functools.lru_cache(maxsize=4)
def lexicon_of(further: tuple[str, ...] = ()) -> Lexicon:
    """Return the lexicon of Shakespeare's words and others."""
    return Lexicon(shakespeares() + Counter(further))
