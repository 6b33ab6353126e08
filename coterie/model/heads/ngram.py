"""A counted n-gram model beside the network: what follows the last few tokens, by counting.

A network that has seen little knows less about the next few characters than a count of them, and
errs elsewhere. Their predictions are multiplied, each raised to its share (log-linear
interpolation, Klakow 1998; an n-gram model beside a neural one: Li et al. 2022, arXiv:2210.14431).
The counts are those of the training text, taken once before training, and smoothed by interpolated
modified Kneser–Ney (Chen & Goodman 1999): an n-gram seen c times counts c less a discount, the rest
goes to shorter contexts, where it counts before how many different tokens an n-gram stood.

Training leaves it out: the network learns by itself, at no cost. Trained together, each would lean
on n-grams that the training text repeats more often than any other text will.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from coterie.foundation.settings import Settings
from coterie.model.costs import Count
from coterie.model.geometry import with_past
from coterie.model.part import Part

_FREE = torch.iinfo(torch.int64).max
"""Stands where no n-gram is; sorted, it comes last."""


class NgramSettings(Settings):
    """Settings of the counted n-gram model."""

    order: int = Field(
        default=8,
        ge=2,
        le=32,
        description="longest n-gram, in tokens; of large vocabularies shorter",
    )
    entries: int = Field(
        default=1 << 20, ge=1, description="n-grams kept; where there are more, they are shorter"
    )
    share: float = Field(
        default=0.45, gt=0, lt=1, description="its exponent; the network's is what is left to one"
    )

    @property
    def bytes(self) -> int:
        """Bytes of the n-grams and their counts, as a checkpoint holds them."""
        return 12 * self.entries

    def longest(self, vocab_size: int) -> int:
        """Return the tokens of the longest n-gram: as many as a number of 62 bits can hold."""
        return max(min(self.order, int(62 / math.log2(max(vocab_size, 2)))), 2)

    def counts(self, vocab_size: int) -> Count:
        """Return its count: nothing that training moves, nothing that is multiplied."""
        return Count("ngram", f"{self.entries:,} {self.longest(vocab_size)}-grams, counted")

    def build(self, vocab_size: int) -> "NgramModel":
        """Return the module, which has counted nothing yet."""
        return NgramModel(self, vocab_size)


class Level(NamedTuple):
    """The n-grams of one length: contexts, ascending, and what followed each of them.

    Attributes:
        contexts: [C], each a number in base V, its oldest token first.
        starts: [C + 1], where its followers begin.
        left: [C], what the shorter context is given, a share of one.
        followers: [E], tokens.
        weights: [E], the share of each.
        widest: followers of the context that has most.
    """

    contexts: Tensor
    starts: Tensor
    left: Tensor
    followers: Tensor
    weights: Tensor
    widest: int


class NgramModel(Part):
    """Counts of the longest n-grams, from which those of all shorter ones follow."""

    grams: Tensor
    counts: Tensor
    length: Tensor

    def __init__(self, settings: NgramSettings, vocab_size: int) -> None:
        super().__init__()
        self.settings, self.vocab_size = settings, vocab_size
        self._longest = settings.longest(vocab_size)
        self.lookback = self._longest - 2
        self.register_buffer("grams", torch.full((settings.entries,), _FREE))
        self.register_buffer("counts", torch.zeros(settings.entries, dtype=torch.int32))
        self.register_buffer("length", torch.zeros((), dtype=torch.int32))
        self._levels: tuple[object, tuple[Level, ...]] | None = None

    @torch.no_grad()
    def count(self, texts: Iterable[Int[Tensor, " N"]]) -> int:
        """Count the n-grams of a text that comes in pieces; return their length.

        It is the longest, up to the settings' own, of which there are not more than fit.
        """
        order, base = self._longest, self.vocab_size
        grams, counts = torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
        before = torch.empty(0, dtype=torch.int64)
        for text in texts:
            text = torch.cat((before, text.to("cpu", torch.int64)))
            before = text[max(len(text) - order + 1, 0) :]
            windows = text.unfold(0, order, 1) if len(text) >= order else text.new_empty(0, order)
            found = torch.zeros(len(windows), dtype=torch.int64)
            for at in range(order):
                found = found * base + windows[:, at]
            grams, counts = _merged(
                torch.cat((grams, found)), torch.cat((counts, torch.ones_like(found)))
            )
            while len(grams) > self.settings.entries and order > 1:
                order -= 1
                grams, counts = _merged(grams % base**order, counts)
                before = before[-(order - 1) :] if order > 1 else before[:0]
        number = min(len(grams), self.settings.entries)
        self.grams.fill_(_FREE)[:number] = grams[:number]
        limit = torch.iinfo(self.counts.dtype).max
        self.counts.zero_()[:number] = counts[:number].clamp(max=limit)
        self.length.fill_(order)
        self._levels = None
        return order

    def levels(self) -> tuple[Level, ...]:
        """Return the n-grams of each length from 1 up; none before anything was counted."""
        version = 0 if self.grams.is_inference() else self.grams._version
        key = (self.grams.data_ptr(), version, self.grams.device)
        if self._levels is None or self._levels[0] != key:
            self._levels = key, self._derived()
        return self._levels[1]

    @torch.no_grad()
    def _derived(self) -> tuple[Level, ...]:
        number = int((self.counts > 0).sum())
        grams, counts = self.grams[:number].cpu(), self.counts[:number].cpu().long()
        found = []
        for order in range(int(self.length), 0, -1) if number else ():
            found.append(self._level(grams, counts))
            grams, counts = _merged(grams % self.vocab_size ** (order - 1), torch.ones_like(grams))
        return tuple(reversed(found))

    def _level(self, grams: Tensor, counts: Tensor) -> Level:
        device = self.grams.device
        discounts = _discounts(counts)[counts.clamp(max=3)]
        contexts, place, sizes = torch.unique_consecutive(
            grams // self.vocab_size, return_inverse=True, return_counts=True
        )
        total = torch.zeros(len(contexts)).index_add_(0, place, counts.float())
        taken = torch.zeros(len(contexts)).index_add_(0, place, discounts)
        starts = torch.cat((sizes.new_zeros(1), sizes.cumsum(0)))
        weights = (counts - discounts) / total[place]
        return Level(
            contexts.to(device),
            starts.to(device),
            (taken / total).to(device),
            (grams % self.vocab_size).to(device),
            weights.to(device),
            int(sizes.max()),
        )

    def contexts(
        self,
        tokens: Int[Tensor, "B T"],
        recent: Int[Tensor, "B n"] | None = None,
        places: Int[Tensor, "B T"] | None = None,
    ) -> Int[Tensor, "B T K"]:
        """Return the last 0, 1, … tokens up to each position as numbers, −1 before a text.

        Args:
            recent: what was read before them, −1 where there was nothing.
            places: of each position in its document; None: all are of one.
        """
        number, longest = tokens.shape[1], self.lookback + 1
        known = with_past(tokens, recent, self.lookback, -1)
        code, found = torch.zeros_like(tokens), [torch.zeros_like(tokens)]
        for back in range(longest):
            start = longest - 1 - back
            earlier = known[:, start : start + number]
            there = (earlier >= 0) & (found[-1] >= 0)
            if places is not None:
                there = there & (places >= back)
            code = code + earlier * self.vocab_size**back
            found.append(code.where(there, -1))
        return torch.stack(found, -1)

    @torch.no_grad()
    def log_probabilities(self, contexts: Int[Tensor, "*N K"]) -> Float[Tensor, "*N V"]:
        """Return ln p(token | context) in float32."""
        levels, shape = self.levels(), contexts.shape[:-1]
        contexts = contexts.flatten(0, -2)
        rows = contexts.shape[0]
        even, device = 1 / self.vocab_size, contexts.device
        shares = torch.full((rows, self.vocab_size), even, dtype=torch.float32, device=device)
        for level, context in zip(levels, contexts.unbind(-1), strict=False):
            at = torch.searchsorted(level.contexts, context.contiguous())
            at = at.clamp(max=len(level.contexts) - 1)
            hit = level.contexts[at] == context
            shares *= level.left[at].where(hit, 1)[:, None]
            column = torch.arange(level.widest, device=at.device)
            first, after = level.starts[at], level.starts[at + 1]
            entry = first[:, None] + column
            inside = (entry < after[:, None]) & hit[:, None]
            entry = entry.where(inside, 0)
            shares.scatter_add_(1, level.followers[entry], level.weights[entry].where(inside, 0))
        return shares.log().unflatten(0, shape)

    def mixed(
        self, logits: Float[Tensor, "*N V"], contexts: Int[Tensor, "*N K"]
    ) -> Float[Tensor, "*N V"]:
        """Return the logits of both together; the network's own where nothing was counted."""
        if not self.levels():
            return logits
        share = self.settings.share
        return (1 - share) * logits + share * self.log_probabilities(contexts).to(logits.dtype)


def _merged(grams: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return each n-gram once, ascending, with the sum of its counts."""
    once, place = torch.unique(grams, return_inverse=True)
    return once, torch.zeros_like(once).index_add_(0, place, counts)


def _discounts(counts: Tensor) -> Float[Tensor, "4"]:
    """Return what is taken from counts of 0, 1, 2 and of 3 or more.

    Chen & Goodman's estimate from n_r, the number of n-grams that were counted r times:
    D_r = r − (r + 1)·Y·n_{r+1}/n_r with Y = n_1/(n_1 + 2·n_2), held between 0 and r.
    """
    seen = [int((counts == r).sum()) for r in range(1, 5)]
    ratio = seen[0] / max(seen[0] + 2 * seen[1], 1)
    found = [0.0]
    for r in range(1, 4):
        estimate = r - (r + 1) * ratio * seen[r] / max(seen[r - 1], 1)
        found.append(min(max(estimate, 0.1), r - 0.05))
    return torch.tensor(found)
