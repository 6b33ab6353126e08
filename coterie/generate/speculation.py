"""Speculation: tokens that are guessed, read in one call and kept as far as they were right.

A drafter guesses; each position's token is then chosen from the model's logits exactly as without
guesses, by all settings and constraints and the text's own random number for that position. The
guess is right if that token is the guessed one; at the first that is not, the rest is taken back.
For a guess that is certain of itself this is the rejection sampling of Leviathan et al. 2023
(arXiv:2211.17192): it is accepted with the probability that the model gives it. And since no random
number is spent on guesses, a seed's text is the same with and without them.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from coterie.foundation.errors import UserError
from coterie.foundation.settings import Settings, union
from coterie.generate.cache import CacheStack, FullCacheSettings
from coterie.generate.modes import evaluation
from coterie.model import Decoder

_TRIALS = 4  # calls with guesses before they are judged
_SHARE = 0.2  # of the newest measurement in the averages
_SHORTEST_REST, _LONGEST_REST = 32, 1024  # steps without guesses after they did not pay


class Controller:
    """Whether guessing pays for one text, by what its steps have cost and gained so far.

    Guesses that do not pay are left out for a while, each time for twice as long. Two steps without
    guesses come first, and the faster one counts: the other may have made room. Which steps guess
    depends on the clock; what they write does not.
    """

    def __init__(self) -> None:
        self._plain: float | None = None  # seconds of a step, which gains one token
        self._seconds = self._gained = 0.0  # of a step with guesses
        self._trials = self._plains = 0
        self._resting, self._rest = 0, _SHORTEST_REST

    @property
    def wants(self) -> bool:
        """Whether the next step should guess."""
        return self._plains > 1 and not self._resting

    def note(self, seconds: float, gained: int, *, guessed: bool) -> None:
        """Take note of a step."""
        if not guessed:
            first = self._plain is None or (self._plains == 1 and seconds < self._plain)
            self._plain = seconds if first else _mixed(self._plain, seconds)
            self._plains += 1
            self._resting = max(self._resting - 1, 0)
            return
        assert self._plain is not None, "a step without guesses comes first"
        first = self._trials == 0
        self._seconds = _mixed(None if first else self._seconds, seconds)
        self._gained = _mixed(None if first else self._gained, float(gained))
        self._trials += 1
        if self._trials < _TRIALS:
            return
        if self._gained * self._plain < self._seconds:
            self._trials, self._resting = 0, self._rest
            self._rest = min(self._rest * 2, _LONGEST_REST)
        else:
            self._rest = _SHORTEST_REST


def _mixed(average: float | None, newest: float) -> float:
    return newest if average is None else average + _SHARE * (newest - average)


Read = Callable[[], tuple[Tensor | None, bool]]
"""Returns hidden states [n, D], None where there are none, and whether they begin anew."""


@runtime_checkable
class Drafter(Protocol):
    """Guesses the next tokens of one text."""

    def draft(self, past: Sequence[int], most: int, read: Read) -> list[int]:
        """Return at most so many tokens that may come next; none where it has no idea.

        Args:
            past: the tokens so far, prompt included; they only ever grow.
            most: of the tokens to return.
            read: returns what the last block made of all tokens but the latest since this was last
                asked, where the settings `watch`.
        """
        ...


class SpeculationSettings(Settings):
    """Base of the settings of ways to guess."""

    @property
    def most(self) -> int:
        """The most tokens of one guess, which a cache must be able to take back."""
        return 0

    @property
    def watches(self) -> bool:
        """Whether hidden states are read."""
        return False

    def build(self, decoder: Decoder) -> Drafter | None:
        """Return what guesses for one text; None: nothing does.

        Raises:
            UserError: this model cannot guess so.
        """
        return None


class NoSpeculation(SpeculationSettings):
    """Guess nothing."""

    kind: Literal["none"] = "none"


class LookupSpeculation(SpeculationSettings):
    """Guess what followed the latest tokens when they last stood in the text: prompt look-up.

    No model is asked. It pays where texts repeat themselves or their prompt: code, edits, names.
    (Saxena 2023, “Prompt Lookup Decoding”, github.com/apoorvumang/prompt-lookup-decoding.)
    """

    kind: Literal["lookup"] = "lookup"
    tokens: int = Field(default=6, ge=1, le=64, description="the most tokens of one guess")
    longest: int = Field(default=4, ge=1, le=16, description="the most latest tokens to look for")
    shortest: int = Field(
        default=2, ge=1, le=16, description="the fewest latest tokens worth looking for"
    )

    @model_validator(mode="after")
    def _from_short_to_long(self) -> "LookupSpeculation":
        if self.shortest > self.longest:
            raise ValueError(f"shortest={self.shortest} is more than longest={self.longest}")
        return self

    @property
    def most(self) -> int:
        return self.tokens

    def build(self, decoder: Decoder) -> "Lookup":
        return Lookup(self.shortest, self.longest, self.tokens)


class Lookup:
    """Finds the latest tokens in the text before them, the longest match and the latest first."""

    def __init__(self, shortest: int, longest: int, tokens: int) -> None:
        self._sizes = range(longest, shortest - 1, -1)
        self._tokens = tokens
        self._after: dict[tuple[int, ...], int] = {}  # where the latest match of an n-gram ends
        self._indexed = 0  # ends of n-grams up to here are known

    def draft(self, past: Sequence[int], most: int, read: Read) -> list[int]:
        for end in range(self._indexed + 1, len(past)):
            for size in self._sizes:
                if size <= end:
                    self._after[tuple(past[end - size : end])] = end
        self._indexed = max(len(past) - 1, 0)
        count = min(most, self._tokens)
        for size in self._sizes:
            end = self._after.get(tuple(past[-size:])) if size <= len(past) else None
            if end is not None:
                period = len(past) - end  # a match that reaches the end goes round
                return [past[end + place % period] for place in range(count)]
        return []


PIECE = 512  # positions that a module reads at once


class MTPSpeculation(SpeculationSettings):
    """Guess with the model's own modules of multi-token prediction.

    Module k joins what depth k − 1 made of a position with the token k places on and predicts the
    one after it (`coterie.model.heads.mtp`); so after the decoder has read a text and a token was
    chosen, module 1 guesses the next, module 2 the one after, and so on; the last module is
    repeated from there with its own states in place of the decoder's. Each module has a KV cache of
    the positions whose tokens are certain; what stood on guesses is taken back before the next
    round.
    """

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


Speculation = Annotated[
    NoSpeculation | LookupSpeculation | MTPSpeculation,
    union(NoSpeculation, LookupSpeculation, MTPSpeculation),
]
