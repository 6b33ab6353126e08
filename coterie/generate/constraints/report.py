"""What the constraints of a text did, noted step by step where somebody asks (`report`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float

from coterie.generate.constraints.interface import Constraint, ConstraintSettings
from coterie.generate.constraints.verse import Verse
from coterie.language.verse.score import scan_text
from coterie.tokenizer.interface import Tokenizer

LARGEST = 5
_BEFORE = 40  # characters
_TABLES = ("largest", "lines")


@runtime_checkable
class Foresees(Protocol):
    """A constraint that bars what looks right and could not be finished."""

    def leads_nowhere(self, token: int) -> bool:
        """Whether a barred token fits what was written, and only what must follow does not."""
        ...


class Removal(NamedTuple):
    """A place where much of the probability was removed.

    Attributes:
        token: which of the text's, from 0.
        removed: the share of the probability.
        before: the end of the text before it.
        wanted: the token that the model found likeliest.
        chosen: the one that was written.
    """

    token: int
    removed: float
    before: str
    wanted: str
    chosen: str


class Licences(NamedTuple):
    """A line of verse that was written: what it cost in nats (None: it does not scan), for what."""

    line: str
    cost: float | None
    licences: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """What the constraints of a text did.

    Attributes:
        tokens: how many were chosen.
        removed: the mean share of the model's probability that was removed before each.
        largest: where most was removed.
        forced: tokens that were the only one left.
        overruled: tokens before which the model's likeliest was barred.
        dead_ends: of these, where the likeliest spelt known words and led nowhere.
        lines: of verse, those written after the prompt's last line's end.
    """

    tokens: int
    removed: float
    largest: tuple[Removal, ...]
    forced: int
    overruled: int
    dead_ends: int
    lines: tuple[Licences, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it as plain mappings and lists."""
        named = {name: [each._asdict() for each in getattr(self, name)] for name in _TABLES}
        return {**vars(self), **named}


class _Step(NamedTuple):
    removed: float
    wanted: int
    forced: bool
    overruled: bool
    dead_end: bool


class Watch:
    """Notes what constraints remove."""

    def __init__(self, constraints: Sequence[Constraint]) -> None:
        self._foresee = [each for each in constraints if isinstance(each, Foresees)]
        self._steps: list[_Step] = []

    def see(self, before: Float[np.ndarray, " V"], after: Float[np.ndarray, " V"]) -> None:
        """Take note of the logits of a step, before and after the constraints."""
        kept = after > -np.inf
        shares = torch.from_numpy(before).double().softmax(-1).numpy()
        wanted = int(before.argmax())
        overruled = not kept[wanted]
        nowhere = overruled and any(each.leads_nowhere(wanted) for each in self._foresee)
        removed = float(shares[~kept].sum())
        self._steps.append(_Step(removed, wanted, int(kept.sum()) == 1, overruled, nowhere))

    def report(
        self,
        prompt: Sequence[int],
        written: Sequence[int],
        tokenizer: Tokenizer,
        limits: Sequence[ConstraintSettings],
    ) -> Report:
        """Return what was noted.

        Args:
            prompt: the text's prompt.
            written: the tokens that were chosen.
            tokenizer: of both.
            limits: the constraints' settings, which tell the metre that lines are held against.
        """
        steps = self._steps[: len(written)]
        ranked = sorted(range(len(steps)), key=lambda at: -steps[at].removed)[:LARGEST]
        decode = tokenizer.decode
        largest = [
            Removal(
                at, round(steps[at].removed, 6), decode([*prompt, *written[:at]])[-_BEFORE:],
                decode([steps[at].wanted]), decode([written[at]]),
            )
            for at in ranked
        ]  # fmt: skip
        before = [token for token in prompt if token not in tokenizer.ends]
        whole = [*before, *(token for token in written if token not in tokenizer.ends)]
        verse = next((each for each in limits if isinstance(each, Verse)), None)
        return Report(
            tokens=len(steps),
            removed=round(sum(each.removed for each in steps) / max(1, len(steps)), 6),
            largest=tuple(largest),
            forced=sum(each.forced for each in steps),
            overruled=sum(each.overruled for each in steps),
            dead_ends=sum(each.dead_end for each in steps),
            lines=_lines(decode(before), decode(whole), verse.measure) if verse else (),
        )


def _lines(prompt: str, text: str, metre: str) -> tuple[Licences, ...]:
    """Return the whole lines of a text that end after its prompt."""
    whole = text if text.endswith("\n") else text.rpartition("\n")[0]
    return tuple(
        Licences(
            line,
            round(scan.cost, 3) if scan.said else None,
            tuple(reason.name for reason in scan.reasons),
        )
        for number, line, scan in scan_text(whole, metre)
        if number > prompt.count("\n")
    )
