"""The words that constrained verse is made of, as a tree of letters, with what metre hears of each.

Words that are said alike are one class (`signatures.options`); each node of the tree knows the
classes of all words below it as bits, so that one comparison tells whether a beginning of a word
can still become one that fits.
"""

import functools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable

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
        children: of each node, by letter.
        word_class: of each node the class of the word that ends there, −1 for none, int64 [N].
        below: of each node the classes of the words at and below it, as bits, uint64 [N, K/64].
    """

    def __init__(self, counts: Counter[str]) -> None:
        said = {word: options(word) for word in counts}
        weights: Counter[Options] = Counter()
        for word, count in counts.items():
            weights[said[word]] += count
        self.classes = [each for each, _ in weights.most_common(MOST)]
        number = {each: index for index, each in enumerate(self.classes)}
        counts = Counter({word: count for word, count in counts.items() if said[word] in number})
        self._nodes: dict[str, int] = {}
        self.children: list[dict[str, int]] = [{}]
        parents, ends = [ROOT], {}
        for word in counts:
            node = ROOT
            for letter in word:
                after = self.children[node].get(letter)
                if after is None:
                    after = self.children[node][letter] = len(self.children)
                    self.children.append({})
                    parents.append(node)
                node = after
            ends[node] = number[said[word]]
            self._nodes[word] = node
        self.parents = np.array(parents)
        self.word_class = np.full(len(self.children), -1)
        self.word_class[list(ends)] = list(ends.values())
        self.below = np.zeros((len(self.children), -(-len(self.classes) // 64)), dtype=np.uint64)
        for node, index in ends.items():
            self.below[node, index // 64] |= np.uint64(1 << index % 64)
        for node in range(len(self.children) - 1, 0, -1):  # children come after their parents
            self.below[parents[node]] |= self.below[node]

    @functools.cached_property
    def _by_ending(self) -> dict[tuple[str, ...], list[str]]:
        found = defaultdict(list)
        for word in self._nodes:
            for ending in endings(word.strip("'")):
                if ending.cost == 0:
                    found[ending.rest].append(word)
        return found

    @functools.cached_property
    def falling(self) -> np.ndarray:
        """Which classes end on a syllable without stress, said without a licence, bool [K]."""
        plain = [[each.signature for each in said if not each.licences] for said in self.classes]
        return np.array([
            bool(found) and all(len(each) > 1 and each[-1] in "03" for each in found)
            for found in plain
        ])  # fmt: skip

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
        near = self._nodes if slant else {w for rest in rests for w in self._by_ending[rest]}
        kinds = ("perfect", "slant") if slant else ("perfect",)
        return frozenset(other for other in near if rhyme(word, other).kind in kinds)

    @functools.cache  # noqa: B019
    def rhymed(self, fewest: int) -> frozenset[str]:
        """Return the words with which at least so many others rhyme perfectly, by their sounds."""
        sounds = {word: endings(word.strip("'"))[0] for word in self._nodes}
        onsets = defaultdict(Counter)
        for ending in sounds.values():
            onsets[ending.rest][ending.onset] += 1
        return frozenset(
            word
            for word, ending in sounds.items()
            if onsets[ending.rest].total() - onsets[ending.rest][ending.onset] >= fewest
        )

    @functools.cache  # noqa: B019
    def kinds_of(self, chosen: frozenset[str]) -> np.ndarray:
        """Return which classes any of some words has, bool [K]."""
        kinds = np.zeros(len(self.classes), dtype=bool)
        kinds[[self.word_class[self._nodes[word]] for word in chosen]] = True
        return kinds

    def towards(self, chosen: frozenset[str], kinds: np.ndarray) -> np.ndarray:
        """Return which nodes lead to one of some words that is of some classes, bool [N]."""
        found = np.zeros(len(self.children), dtype=bool)
        for word in chosen:
            node = self._nodes[word]
            if kinds[self.word_class[node]]:
                while not found[node]:
                    found[node] = True
                    node = int(self.parents[node])
        return found

    def bits(self, kinds: np.ndarray) -> np.ndarray:
        """Return classes, bool [K], as bits, uint64 [K/64]."""
        padded = np.zeros(64 * self.below.shape[1], dtype=bool)
        padded[: len(kinds)] = kinds
        return np.packbits(padded, bitorder="little").view(np.uint64)


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
