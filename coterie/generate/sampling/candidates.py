"""The tokens that may still be chosen, with their logits: what every step takes and returns."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int


class Candidates(NamedTuple):
    """The tokens that may still be chosen.

    Attributes:
        logits: unnormalised log-probabilities; −∞ where a token is impossible.
        tokens: which tokens they are of, ascending; None: all of the vocabulary.
    """

    logits: Float[np.ndarray, " K"]
    tokens: Int[np.ndarray, " K"] | None = None

    def token(self, place: int) -> int:
        return place if self.tokens is None else int(self.tokens[place])

    def keep(self, places: Int[np.ndarray, " k"]) -> "Candidates":
        """Return those at these places, ascending."""
        tokens = places if self.tokens is None else self.tokens[places]
        return Candidates(self.logits[places], tokens)

    def places(self, tokens: Iterable[int]) -> Int[np.ndarray, " n"]:
        """Return where these tokens stand, each once; those that are no candidates are left out."""
        wanted = np.array(sorted(set(tokens)), dtype=np.int64)
        if self.tokens is None:
            return wanted
        places = np.searchsorted(self.tokens, wanted).clip(max=len(self.tokens) - 1)
        return places[self.tokens[places] == wanted]

    def of(self, per_token: Float[np.ndarray, " V"]) -> Float[np.ndarray, " K"]:
        """Return what an array over the whole vocabulary says of each candidate."""
        return per_token if self.tokens is None else per_token[self.tokens]


def probabilities(logits: Float[np.ndarray, " K"]) -> Float[np.ndarray, " K"]:
    """Return the softmax; torch's is the faster one, above all over a large vocabulary."""
    return torch.from_numpy(logits).softmax(-1).numpy()


def log_probabilities(logits: Float[np.ndarray, " K"]) -> Float[np.ndarray, " K"]:
    """Return the logarithm of the softmax, in nats."""
    return torch.from_numpy(logits).log_softmax(-1).numpy()


def largest(values: Float[np.ndarray, " K"], count: int) -> Int[np.ndarray, " k"]:
    """Return the places of exactly the `count` largest values, ascending; of equals the first.

    A partition finds the smallest value that is kept: nothing is sorted.
    """
    if count >= len(values):
        return np.arange(len(values))
    edge = np.partition(values, len(values) - count)[len(values) - count]
    above = np.flatnonzero(values > edge)
    equal = np.flatnonzero(values == edge)[: count - len(above)]
    return np.sort(np.concatenate((above, equal)))


def fewest(
    keys: Float[np.ndarray, " K"],
    weights: Float[np.ndarray, " K"],
    mass: float,
    floors: Iterable[float],
) -> Int[np.ndarray, " k"]:
    """Return the places, ascending, of the fewest items by descending key that hold `mass`.

    Only the items whose keys reach the first of the `floors` that leaves enough are sorted. At
    least one item is returned; of equals the first.

    Args:
        keys: what the items are ranked by.
        weights: their probabilities, which sum to 1.
        mass: what the chosen items must hold.
        floors: descending.
    """
    found = np.arange(len(keys))
    for floor in floors:
        above = np.flatnonzero(keys >= floor)
        if weights[above].sum(dtype=np.float64) >= mass:
            found = above
            break
    ranked = found[np.argsort(-keys[found], kind="stable")]
    held = weights[ranked].astype(np.float64)
    before = held.cumsum() - held  # what all better ones hold
    return np.sort(ranked[: max(int((before < mass).sum()), 1)])
