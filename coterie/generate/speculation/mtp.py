"""Guesses by the model's own modules of multi-token prediction.

Module k joins what depth k − 1 made of a position with the token k places on and predicts the one
after it (`coterie.model.heads.mtp`); so after the decoder has read a text and a token was chosen,
module 1 guesses the next, module 2 the one after, and so on; the last module is repeated from there
with its own states in place of the decoder's. Each module has a KV cache of the positions whose
tokens are certain; what stood on guesses is taken back before the next round.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from coterie.foundation.errors import UserError
from coterie.generate.cache import CacheStack, FullCacheSettings
from coterie.generate.modes import evaluation
from coterie.generate.speculation.interface import Read, SpeculationSettings
from coterie.model import Decoder

PIECE = 512  # positions that a module reads at once


class MTPSpeculation(SpeculationSettings):
    """Guess with the model's MTP modules."""

    kind: Literal["mtp"] = "mtp"
    tokens: int = Field(default=1, ge=1, le=16, description="the most tokens of one guess")

    @property
    def most(self) -> int:
        return self.tokens

    @property
    def watches(self) -> bool:
        return True

    def build(self, decoder: Decoder) -> "Modules":
        """Return what guesses for one text.

        Raises:
            UserError: the model has no MTP modules.
        """
        if not len(decoder.mtp):
            raise UserError(
                "speculation=mtp needs a model with MTP modules, and this one has none.",
                hint="Take speculation=lookup, which needs none, or a model that was trained with "
                "model.mtp.depth=1 or imported with its modules.",
            )
        return Modules(decoder, self.tokens)


class Modules:
    """The modules at work on one text.

    Positions are counted from the first of which the decoder's hidden states were seen.
    """

    def __init__(self, decoder: Decoder, tokens: int) -> None:
        self._decoder, self._tokens = decoder, tokens
        self._spec = decoder.settings.mtp_plan().attention.cache_spec()
        self._parts = tuple(decoder.modules())
        # Parts that carry a state from token to token embed the text from its beginning.
        self._lookback = 1 << 30 if len(decoder.additive) else decoder.embedding.lookback
        self._begin()

    def _begin(self) -> None:
        self._seen = 0  # positions of which there were states
        self._caches = [self._cache() for _ in self._decoder.mtp]
        # What each module is yet to read, from the first position on that its cache lacks.
        self._pending: list[Tensor | None] = [None for _ in self._decoder.mtp]

    def _cache(self) -> CacheStack:
        return FullCacheSettings().build([self._spec], self._tokens + len(self._decoder.mtp))

    def draft(self, past: Sequence[int], most: int, read: Read) -> list[int]:
        states, fresh = read()
        if fresh:
            self._begin()
        if states is None:
            return []
        self._seen += len(states)
        text = list(past[len(past) - 1 - self._seen :])
        with evaluation(self._decoder, self._parts):
            return self._guess(text, states[None], min(most, self._tokens))

    def _guess(self, text: list[int], states: Float[Tensor, "1 n D"], most: int) -> list[int]:
        """Return guesses of what follows a text of which the decoder has read all but the last."""
        known, fresh = len(text), states
        for module in range(len(self._caches)):
            fresh = _joined(self._pending[module], fresh)
            certain = max(self._seen - module, 0)  # positions whose token is
            if len(text) == known + most:  # for another time, and modules above have nothing new
                held = self._caches[module].length
                self._pending[module] = fresh[:, : max(self._seen - module + 1, 0) - held]
                break
            first, read = self._caches[module].length, fresh
            fresh, token = self._read(module, read, text)
            text.append(token)
            if module == len(self._caches) - 1:
                self._repeat(fresh[:, -1:], text, known + most)
            self._take_back(module, certain)
            self._pending[module] = read[:, certain - first : certain - first + bool(module)]
        return text[known:]

    def _repeat(self, hidden: Float[Tensor, "1 1 D"], text: list[int], most: int) -> None:
        """Go on with the last module until the text is so long."""
        while len(text) < most:
            hidden, token = self._read(len(self._caches) - 1, hidden, text)
            text.append(token)

    def _read(
        self, module: int, hidden: Float[Tensor, "1 n D"], text: list[int]
    ) -> tuple[Float[Tensor, "1 n D"], int]:
        cache, made, logits = self._caches[module], [], hidden
        for piece in hidden.split(PIECE, dim=1):
            first = cache.length + module + 1
            tokens = text[max(first - self._lookback, 0) : first + piece.shape[1]]
            rows = torch.tensor([tokens], device=hidden.device)
            states, logits = self._decoder.read_module(module, piece, rows, cache)
            made.append(states)
        return torch.cat(made, 1), int(logits[0].argmax())

    def _take_back(self, module: int, length: int) -> None:
        """Leave in a module's cache so many positions."""
        if length:
            self._caches[module].truncate((length,))
        else:
            self._caches[module] = self._cache()


def _joined(pending: Tensor | None, states: Tensor) -> Tensor:
    return states if pending is None else torch.cat((pending, states), 1)
