"""What a cache costs: how well a model predicts texts that it reads through the cache.

A cache that is not exact shows its loss only where it is used as generation uses it: each window is
read from its beginning in small pieces, each of which sees what the cache has kept of all before.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from jaxtyping import Float
from torch import Tensor

from coterie.evaluate.scoring import DISJOINT, Progress, Scoring, windows_at_once
from coterie.evaluate.windows import Window, all_windows
from coterie.foundation.errors import UserError
from coterie.generate.cache import CacheSettings
from coterie.generate.modes import evaluation
from coterie.generate.session import cache_specs
from coterie.model import Decoder
from coterie.model.context import ForwardContext

PIECE = 16
"""Tokens that are read at once."""


@dataclass(frozen=True)
class CachedScore:
    """Texts read through a cache.

    Attributes:
        logprobs: of every token of each text but the first, in nats.
        nbytes: what the cache held of one of the longest windows, its spare room included.
        tokens: how many tokens that had.
    """

    logprobs: list[Float[Tensor, " T"]]
    nbytes: float
    tokens: int

    @property
    def bytes_per_token(self) -> float:
        """Bytes held for each token."""
        return self.nbytes / self.tokens


def cached_logprobs(
    decoder: Decoder,
    sequences: Sequence[Sequence[int]],
    settings: CacheSettings,
    scoring: Scoring = DISJOINT,
    progress: Progress = lambda done: None,
    piece: int = PIECE,
) -> CachedScore:
    """Return the log-probability of every token but the first of each sequence.

    Args:
        decoder: the model, in any mode, which it keeps.
        sequences: tokens, at least two of each.
        settings: of the cache; each window begins with an empty one.
        progress: told how many tokens were scored so far.
        piece: how many tokens are read at once; they see each other as they are.

    Raises:
        UserError: the cache would keep nothing.
    """
    window = scoring.window_of(decoder)
    cuts = all_windows(map(len, sequences), window, scoring.stride)
    found: list[list[tuple[int, Tensor]]] = [[] for _ in sequences]
    done, held, tokens = 0, 0.0, 0
    for batch in _alike(cuts, windows_at_once(decoder)):
        rows = [sequences[number][cut.start : cut.stop + 1] for number, cut in batch]
        scores, nbytes = _through(decoder, torch.tensor(rows), settings, piece)
        if not tokens:
            held, tokens = nbytes / len(rows), scores.shape[1]
        for (number, cut), row in zip(batch, scores, strict=True):
            own = row[cut.scored - cut.start - 1 :]
            found[number].append((cut.scored, own))
            done += len(own)
        progress(done)
    ordered = (sorted(pieces, key=lambda each: each[0]) for pieces in found)
    return CachedScore([torch.cat([own for _, own in each]) for each in ordered], held, tokens)


def _alike(cuts: list[tuple[int, Window]], most: int) -> Iterator[list[tuple[int, Window]]]:
    """Yield windows of equal length together."""
    for _, same in groupby(cuts, key=lambda each: each[1].stop - each[1].start):
        batch = list(same)
        for at in range(0, len(batch), most):
            yield batch[at : at + most]


def _through(
    decoder: Decoder, rows: Tensor, settings: CacheSettings, piece: int
) -> tuple[Float[Tensor, "B T"], int]:
    """Return the log-probabilities of all tokens of rows but the first, and what was kept."""
    cache = settings.build(cache_specs(decoder))
    if cache is None:
        raise UserError("cache=none keeps nothing, so there is nothing to measure.")
    rows = rows.to(next(decoder.parameters()).device)
    scores = []
    with evaluation(decoder):
        pairs = zip(rows[:, :-1].split(piece, 1), rows[:, 1:].split(piece, 1), strict=True)
        for inputs, targets in pairs:
            logits = decoder(inputs, context=ForwardContext(cache=cache)).logits
            chosen = logits.gather(-1, targets[..., None])[..., 0]
            scores.append((chosen - logits.logsumexp(-1)).cpu())
    return torch.cat(scores, 1), cache.nbytes
