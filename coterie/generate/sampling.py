"""From one row of logits to one token: a chain of pure functions and a random stream of its own.

The chain is: mask what constraints forbid → penalise repetitions → divide by the temperature → keep
the `top_k` likeliest → keep the smallest set that holds `top_p` of the probability → draw. Each
token consumes exactly one uniform number of a generator that belongs to this text alone, so the
same seed gives the same text whatever else is in the batch, and no other generator is touched.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from pydantic import Field, field_validator
from torch import Tensor

from coterie.foundation.errors import CoterieError, UserError
from coterie.foundation.settings import Settings
from coterie.generate.cache import CacheSettings, FullCacheSettings
from coterie.generate.constraints import Constraint, ConstraintUnion, follow


class SamplingSettings(Settings):
    """How a text is drawn from the model's probabilities."""

    temperature: float = Field(
        default=0.8,
        ge=0,
        le=100,
        description="flattens (> 1) or sharpens (< 1); 0 takes the likeliest",
    )
    top_k: int | None = Field(default=None, ge=1, description="keep only the k likeliest tokens")
    top_p: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="keep the fewest tokens that hold this much probability",
    )
    repetition_penalty: float = Field(
        default=1.0,
        gt=0,
        le=100,
        description="above 1 makes tokens of the recent past less likely",
    )
    repetition_window: int = Field(
        default=256, ge=1, description="how many of the latest tokens the penalty looks at"
    )
    seed: int = Field(default=1337, ge=0, lt=1 << 63, description="of the text's own random stream")
    max_tokens: int = Field(default=256, ge=1, description="the most tokens to generate")
    stop: tuple[str, ...] = Field(
        default=(), description="texts that end the generation; never shown"
    )
    constraints: tuple[ConstraintUnion, ...] = Field(
        default=(), description="what the text may go on with, token by token"
    )
    cache: CacheSettings = Field(
        default=FullCacheSettings(), description="what is kept of keys and values between tokens"
    )

    @field_validator("stop", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("stop")
    @classmethod
    def _not_empty(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "" in value:
            raise ValueError("an empty stop text would end every generation at once")
        return value

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken (temperature 0), so that no chance enters."""
        return self.temperature == 0


class Choice(NamedTuple):
    """One chosen token and its log-probability in nats.

    `logprob` is the model's own: before penalty, temperature and truncation.
    """

    token: int
    logprob: float


def penalise_repeats(
    logits: Float[Tensor, " V"], recent: Sequence[int], penalty: float
) -> Float[Tensor, " V"]:
    """Make the tokens in `recent` less likely (penalty > 1): once per distinct token.

    Positive logits are divided, negative ones multiplied, so that the logit always moves down
    (Keskar et al. 2019, “CTRL”, section 4.1, with the sign repaired).
    """
    if penalty == 1.0 or not recent:
        return logits
    seen = torch.tensor(sorted(set(recent)), device=logits.device)
    values = logits[seen]
    penalised = torch.where(values > 0, values / penalty, values * penalty)
    return logits.index_copy(0, seen, penalised)


def apply_temperature(logits: Float[Tensor, " V"], temperature: float) -> Float[Tensor, " V"]:
    """Divide by a positive temperature; the largest becomes 0 first, so none overflows."""
    assert temperature > 0, "temperature 0 means greedy and is decided before"
    return (logits - logits.max()) / temperature


def keep_top_k(logits: Float[Tensor, " V"], top_k: int | None) -> Float[Tensor, " V"]:
    """Set all but exactly the `top_k` largest logits to minus infinity."""
    if top_k is None or top_k >= logits.shape[-1]:
        return logits
    values, kept = logits.topk(top_k)
    return torch.full_like(logits, -torch.inf).index_copy(0, kept, values)


def keep_top_p(logits: Float[Tensor, " V"], top_p: float) -> Float[Tensor, " V"]:
    """Keep the fewest likeliest tokens whose probabilities sum to at least `top_p`; at least one.

    The formula is the nucleus of Holtzman et al. 2020, “The Curious Case of Neural Text
    Degeneration”, section 3.1.
    """
    if top_p >= 1:
        return logits
    values, order = logits.sort(descending=True, stable=True)
    probabilities = values.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities  # the mass of all likelier tokens
    dropped = order[before >= top_p]
    return logits.index_fill(0, dropped, -torch.inf)


def draw(logits: Float[Tensor, " V"], uniform: float) -> int:
    """Return the token at the point `uniform` in [0, 1) of the cumulative distribution."""
    cumulative = logits.double().softmax(-1).cumsum(-1)
    total = cumulative[-1:]  # 1 up to rounding; the point must stay below it
    point = torch.minimum(total * uniform, torch.nextafter(total, torch.zeros_like(total)))
    return int(torch.searchsorted(cumulative, point, right=True))


class Sampler:
    """Chooses the tokens of one text, one after the other.

    Args:
        settings: how to choose.
        seed: of this text's random stream; the settings' seed if None.
        banned: tokens never to choose.
        constraints: what the text may go on with; they are told of each choice.
    """

    def __init__(
        self,
        settings: SamplingSettings,
        seed: int | None = None,
        banned: Sequence[int] = (),
        constraints: Sequence[Constraint] = (),
    ) -> None:
        self.settings = settings
        self._banned = list(banned)
        self._constraints = tuple(constraints)
        self._generator = torch.Generator().manual_seed(settings.seed if seed is None else seed)

    def choose(self, logits: Float[Tensor, " V"], past: Sequence[int]) -> Choice:
        """Choose the next token.

        Args:
            logits: unnormalised log-probabilities of the next token, any float type.
            past: the tokens so far, prompt included; the penalty looks at the latest of them.

        Raises:
            CoterieError: the model gave logits that are not finite.
            UserError: the constraints leave no token to choose.
        """
        logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
        total = float(logits.logsumexp(-1))
        if not math.isfinite(total):
            raise CoterieError(
                "The model's output is not finite, so no token can be chosen from it.",
                hint="Its weights are probably damaged or its training diverged: "
                "try an earlier checkpoint, or train with a lower learning rate.",
            )
        token = self._pick(logits, past)
        follow(self._constraints, token)
        return Choice(token, float(logits[token]) - total)

    def _pick(self, logits: Float[Tensor, " V"], past: Sequence[int]) -> int:
        chosen = self.settings
        if self._banned:
            logits = logits.clone()
            logits[self._banned] = -torch.inf
        for constraint in self._constraints:
            logits = constraint.mask(logits)
        if self._constraints and not bool((logits > -torch.inf).any()):
            raise UserError(
                "The constraints leave no token that the text could go on with.",
                hint="Loosen one of sample.constraints, or give another prompt.",
            )
        recent = past[-chosen.repetition_window :]
        logits = penalise_repeats(logits, recent, chosen.repetition_penalty)
        if chosen.greedy:
            return int(logits.argmax())
        logits = apply_temperature(logits, chosen.temperature)
        logits = keep_top_p(keep_top_k(logits, chosen.top_k), chosen.top_p)
        uniform = float(torch.rand((), generator=self._generator, dtype=torch.float64))
        return draw(logits, uniform)
