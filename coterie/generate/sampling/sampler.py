"""The choice of one text's tokens, one after the other."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from coterie.foundation.errors import CoterieError, SettingsError, UserError
from coterie.generate.constraints import Constraint, build_all, follow, mask_all
from coterie.generate.constraints.report import Report, Watch
from coterie.generate.sampling.candidates import (
    Candidates,
    largest,
    log_probabilities,
    probabilities,
)
from coterie.generate.sampling.drawing import draw, stream_key, uniform
from coterie.generate.sampling.rule import Rule
from coterie.generate.sampling.settings import SamplingSettings, StepName
from coterie.generate.sampling.steps import STEPS, History
from coterie.tokenizer.interface import Tokenizer

TopLogprobs = tuple[tuple[int, float], ...]
"""Tokens and their log-probabilities in nats, the likeliest first."""


LookAtChoice = Callable[[Float[np.ndarray, " V"], Candidates, int], None]
"""Told of each choice: the model's log-probabilities, what was left to draw from, the token."""


class Choice(NamedTuple):
    """One chosen token.

    Attributes:
        token: its number.
        logprob: its log-probability in nats: the model's own, before penalty, temperature and
            truncation, or with `logprobs_mode=processed` that of the distribution drawn from.
        top_logprobs: the likeliest tokens of the same distribution; impossible ones are left out.
    """

    token: int
    logprob: float
    top_logprobs: TopLogprobs = ()


class Sampler:
    """Chooses the tokens of one text, one after the other.

    Token i depends on the logits, the tokens before it, and number i of the seed's random stream.

    Args:
        seed: of this text's random stream; the settings' seed if None.
        constraints: what the text may go on with; they are told of each choice.
        ends: tokens that end the text, not to be chosen before `min_tokens`.

    Attributes:
        look: told of each choice; None: nobody.
    """

    def __init__(
        self,
        settings: SamplingSettings,
        seed: int | None = None,
        banned: Sequence[int] = (),
        constraints: Sequence[Constraint] = (),
        ends: Sequence[int] = (),
        bias: Mapping[int, float] | None = None,
    ) -> None:
        self.settings = settings
        self._seed = settings.seed if seed is None else seed
        self._banned = list(banned)
        self._constraints = tuple(constraints)
        self._ends = list(ends)
        self._biased = np.array(list(bias or ()), dtype=np.int64)
        self._bias = np.array(list((bias or {}).values()))
        self._counts = np.zeros(0)
        self._made = 0
        watched = settings.report and bool(self._constraints)
        self._watch = Watch(self._constraints) if watched else None
        self.look: LookAtChoice | None = None

    @classmethod
    def for_text(
        cls,
        settings: SamplingSettings,
        tokenizer: Tokenizer,
        prompt: Sequence[int],
        seed: int | None = None,
        further: Sequence[Constraint] = (),
    ) -> "Sampler":
        """Return what chooses the continuation of a prompt.

        Args:
            seed: of the text's random stream; the settings' seed if None.
            further: constraints besides those of the settings, applied after them.

        Raises:
            SettingsError: `logit_bias` names no token.
            UserError: a constraint cannot be met with this tokenizer.
        """
        # “Unknown” stands for what the vocabulary cannot say: nothing to write.
        unknown = tokenizer.unknown_token
        return cls(
            settings,
            seed,
            banned=() if unknown is None else (unknown,),
            constraints=[*build_all(settings.limits, tokenizer, prompt), *further],
            ends=tuple(tokenizer.ends),
            bias={_token(name, tokenizer): value for name, value in settings.logit_bias.items()},
        )

    def choose(self, logits: Float[Tensor, " V"], past: Sequence[int]) -> Choice:
        """Choose the next token.

        Args:
            logits: unnormalised log-probabilities of the next token, any float type, any device.
            past: the tokens so far, prompt included; the repetition penalty looks at the latest.

        Raises:
            CoterieError: the model gave logits that are not finite.
            UserError: the constraints leave no token to choose.
        """
        row = _on_host(logits)
        raw = _finite(row)
        order = ("penalties",) if self.settings.greedy else self.settings.order
        candidates = self._processed(row, past, order)
        place = self._pick(candidates)
        token = candidates.token(place)
        if self.settings.logprobs_mode == "raw":
            choice = _told(Candidates(raw), token, token, self.settings.logprobs)
        else:
            processed = candidates._replace(logits=log_probabilities(candidates.logits))
            choice = _told(processed, token, place, self.settings.logprobs)
        if self.look is not None:
            self.look(raw, candidates, token)
        self.note(token)
        return choice

    def rule(self, size: int, left: int) -> Rule | None:
        """Return how the next tokens are chosen; None: it takes more than a rule can say.

        Args:
            size: tokens of the tokenizer.
            left: tokens that may still be written.
        """
        given = self.settings
        if self._constraints or len(self._biased) or len(self._banned) > 1:
            return None
        if not given.ruled or size < len(self._ends) + 2:
            return None
        banned = self._banned[0] if self._banned else -1
        return Rule(
            size, given.temperature, given.top_k or 0, given.top_p, given.min_p,
            stream_key(self._seed), self._made, left, banned, given.min_tokens,
            tuple(self._ends),
        )  # fmt: skip

    def penalised(self, logits: Float[Tensor, " V"], past: Sequence[int]) -> Candidates:
        """Return the log-probabilities after bias, constraints and penalties; choose nothing.

        Raises:
            CoterieError: the model gave logits that are not finite.
            UserError: the constraints leave no token.
        """
        row = _on_host(logits)
        _finite(row)
        candidates = self._processed(row, past, ("penalties",))
        return candidates._replace(logits=log_probabilities(candidates.logits))

    def report(
        self, prompt: Sequence[int], written: Sequence[int], tokenizer: Tokenizer
    ) -> Report | None:
        """Return what the constraints did; None: there are none, or `report` was not asked for."""
        if self._watch is None:
            return None
        return self._watch.report(prompt, written, tokenizer, self.settings.limits)

    def note(self, token: int) -> None:
        self._counts[token] += 1
        self._made += 1
        follow(self._constraints, token)

    def replay(self, tokens: Sequence[int], vocab_size: int) -> None:
        """Take note of tokens that were chosen before, each by a number of its own."""
        self._counts = np.zeros(max(vocab_size, len(self._counts)), dtype=np.float32)
        for token in tokens:
            self.note(token)

    def fork(self) -> "Sampler":
        """Return a sampler that goes on from here by itself."""
        other = copy.copy(self)
        other._counts = self._counts.copy()
        other._constraints = copy.deepcopy(self._constraints)
        return other

    def _pick(self, candidates: Candidates) -> int:
        """Return the place of the token that is chosen."""
        if self.settings.greedy:
            return int(candidates.logits.argmax())
        return draw(probabilities(candidates.logits), uniform(self._seed, self._made))

    def _processed(
        self, row: Float[Tensor, " V"], past: Sequence[int], order: Sequence[StepName]
    ) -> Candidates:
        """Return the candidates after everything that comes first, and these steps.

        Of greedy texts these are the penalties: the others leave the likeliest where it is.
        """
        if len(self._counts) < len(row):
            self._counts = np.zeros(len(row), dtype=row.numpy().dtype)
        candidates = self._allowed(row)
        history = History(past, self._counts)
        for name in order:
            candidates = STEPS[name](candidates, self.settings, history)
        return candidates

    def _allowed(self, row: Float[Tensor, " V"]) -> Candidates:
        """Return the tokens that may follow, biased."""
        masked = self._banned + (self._ends if self._made < self.settings.min_tokens else [])
        if masked or len(self._biased):
            row = row.clone()
            values = row.numpy()
            values[self._biased] += self._bias.astype(values.dtype)
            values[masked] = -np.inf
        candidates = Candidates(mask_all(self._constraints, row).numpy())
        if self._watch is not None:
            self._watch.see(row.numpy(), candidates.logits)
        if not masked and not self._constraints:
            return candidates
        allowed = np.flatnonzero(candidates.logits > -np.inf)
        if not len(allowed):
            raise UserError(
                "The constraints leave no token that the text could go on with.",
                hint="Loosen one of sample.constraints, or give another prompt.",
            )
        return candidates.keep(allowed)


def _on_host(logits: Float[Tensor, " V"]) -> Float[Tensor, " V"]:
    half = logits.dtype in (torch.float16, torch.bfloat16)
    return (logits.float() if half else logits).detach().cpu().contiguous()


def _finite(row: Float[Tensor, " V"]) -> Float[np.ndarray, " V"]:
    """Return the model's own log-probabilities.

    Raises:
        CoterieError: they are none.
    """
    raw = log_probabilities(row.numpy())
    if np.isnan(raw[0]):  # one number that is not finite makes all of them NaN
        raise not_finite()
    return raw


def not_finite() -> CoterieError:
    """Return what is said of logits among which some are no numbers."""
    return CoterieError(
        "The model's output is not finite, so no token can be chosen from it.",
        hint="Its weights are probably damaged or its training diverged: "
        "try an earlier checkpoint, or train with a lower learning rate.",
    )


def _told(logs: Candidates, token: int, place: int, count: int) -> Choice:
    """Return a choice with the log-probabilities that are to be told of it.

    Args:
        logs: the log-probabilities of the candidates.
        count: how many of the likeliest to tell.
    """
    if not count:
        return Choice(token, float(logs.logits[place]))
    top = largest(logs.logits, count)
    top = top[np.argsort(-logs.logits[top], kind="stable")]
    told = [(logs.token(each), float(logs.logits[each])) for each in top.tolist()]
    possible = tuple(each for each in told if each[1] > -np.inf)
    return Choice(token, float(logs.logits[place]), possible)


def _token(name: str, tokenizer: Tokenizer) -> int:
    """Return the token that a key of `logit_bias` names: a number, else the text of one token."""
    if not name.isdecimal():
        return tokenizer.single_token(name, "logit_bias")
    if int(name) >= tokenizer.vocab_size:
        raise SettingsError(
            f"logit_bias={name} is no token: the tokenizer has {tokenizer.vocab_size:,} of them.",
            hint="Tokens are counted from 0; a token may also be named by its text.",
        )
    return int(name)
