"""Reading tokens with a decoder: through a cache or anew, and what happens beyond the context.

A decoder reads positions 0, 1, 2, … of a stretch of text. Where positions may go on for ever
(rotary or none, and every attention layer with a window of its own and nothing beyond it, neither
sinks nor summaries), the stretch never ends. Otherwise it holds at most the model's context: when
it is full, a new stretch begins with the latest half of it, read again from position 0, so that a
long text costs one such reading every half context; the token that begins texts, where there is
one, stays first. Where positions are `stable` only up to some length (their turn then depends on
how long the text is, as with dynamic NTK scaling), a longer stretch is read anew for each token,
for nothing kept would still be right. All caches, `none` included, follow the same rules, and so
give the same text.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from coterie.generate.cache import CacheSettings, CacheStack
from coterie.generate.passes import Call, EagerPass, Pass, serving
from coterie.model import CacheSpec, Decoder


def cache_specs(decoder: Decoder) -> list[CacheSpec]:
    """Return what each layer's attention needs of the past, from the bottom up."""
    return [plan.attention.cache_spec() for plan in decoder.settings.plans()]


def position_limit(decoder: Decoder) -> int | None:
    """Return the most tokens of one stretch; None where a text may go on for ever."""
    position = decoder.position
    bounded = all(
        spec.window is not None and not spec.sinks and not spec.summaries
        for spec in cache_specs(decoder)
    )
    endless = position.limit is None and position.stable is None and bounded
    return None if endless else position.limit or decoder.settings.context


@contextmanager
def evaluation(decoder: nn.Module) -> Iterator[None]:
    """Switch dropout and gradients off inside the block; afterwards every part is as it was."""
    training = [module for module in decoder.modules() if module.training]
    for module in training:
        module.training = False
    try:
        with torch.inference_mode():
            yield
    finally:
        for module in training:
            module.training = True


def latest(tokens: list[int], count: int, begin: int | None = None) -> list[int]:
    """Return the last `count` tokens, of which the first is `begin` if that is the text's first."""
    if len(tokens) <= count:
        return tokens
    if count > 1 and begin is not None and tokens[0] == begin:
        return [begin, *tokens[-(count - 1) :]]
    return tokens[-count:]


class DecodeSession:
    """A batch of texts of equal length on their way through a decoder.

    Args:
        decoder: the model, on any device and in any mode.
        settings: which cache to keep.
        begin: the token with which texts begin, if there is one.
    """

    def __init__(self, decoder: Decoder, settings: CacheSettings, begin: int | None = None) -> None:
        self._decoder = decoder
        self._settings = settings
        self._begin = begin
        self._limit = position_limit(decoder)
        self._stable = decoder.position.stable
        self._specs = cache_specs(decoder)
        self._device = next(decoder.parameters()).device
        self._tokens: Int[Tensor, "B T"] | None = None  # of the present stretch
        self._cache: CacheStack | None = settings.build(self._specs)
        self._passes: tuple[Pass, ...] = (EagerPass(decoder),)

    @property
    def cache_nbytes(self) -> int:
        """Memory that the cache holds at present, in bytes."""
        return self._cache.nbytes if self._cache is not None else 0

    def read(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B V"]:
        """Read T further tokens of each text and return the logits of the one that comes next."""
        tokens = tokens.to(self._device)
        known = tokens if self._tokens is None else torch.cat((self._tokens, tokens), dim=1)
        if self._limit is not None and known.shape[1] > self._limit:
            half = max(self._limit // 2, 1)
            rows = [latest(row, half, self._begin) for row in known.tolist()]
            known = tokens = torch.tensor(rows, device=self._device)
            self._cache = self._settings.build(self._specs)
        if self._stable is not None and known.shape[1] > self._stable:
            self._cache = None  # for the rest of this stretch
        self._tokens = known
        with evaluation(self._decoder):
            call = Call(known if self._cache is None else tokens, self._cache)
            logits = serving(self._passes, call).read(call)
        return logits[:, -1]

    def select(self, rows: list[int]) -> None:
        """Keep only these rows of the batch, in this order; a row may be named more than once."""
        index = torch.tensor(rows, device=self._device)
        assert self._tokens is not None, "nothing was read yet"
        self._tokens = self._tokens.index_select(0, index)
        if self._cache is not None:
            with torch.inference_mode():
                self._cache.select(index)
