"""What generation asks of a way to compute logits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from coterie.generate.cache.stack import CacheStack
from coterie.generate.sampling.rule import Chosen, Rule


@dataclass(frozen=True, eq=False)
class Call:
    """New tokens to be read.

    Attributes:
        tokens: T of each row, on the decoder's device.
        cache: the past of the rows, of which the tokens become part; None: they have none, and
            nothing is kept.
        lengths: how many tokens of each row are real, the others being padding; None: all.
        last: of how many last positions of each row logits are wanted.
        watch: handed what the last block made of all T tokens [B, T, D], before the norm; what is
            handed over is the receiver's.
    """

    tokens: Int[Tensor, "B T"]
    cache: CacheStack | None = None
    lengths: tuple[int, ...] | None = None
    last: int = 1
    watch: Callable[[Float[Tensor, "B T D"]], None] | None = None


@runtime_checkable
class Pass(Protocol):
    """One way to compute the logits of new tokens."""

    def refuses(self, call: Call) -> str | None:
        """Return why it cannot serve a call; None: it can. Asked before each call, so cheap."""
        ...

    def read(self, call: Call) -> Float[Tensor, "B n V"]:
        """Return the logits of the last positions; the tokens become part of the past.

        A row with fewer real tokens than positions asked for has its first one repeated before
        them; a row without any returns something that nobody looks at.
        """
        ...


@runtime_checkable
class SeveralSteps(Pass, Protocol):
    """A pass that can also choose tokens and go on from them, without a return to its caller."""

    def steps(self, call: Call, rules: Sequence[Rule], most: int) -> list[Chosen] | None:
        """Read the one new token of each row, choose the next, read that, and so on.

        Args:
            call: one that is not refused.
            most: tokens to choose for each row, at least 1; a row ends earlier by its rule.

        Returns:
            At most so many of each row, all rows that go on equally many; of these all but the last
            are part of the past. None: the rules are more than it can follow.
        """
        ...


def serving(passes: Sequence[Pass], call: Call) -> Pass:
    """Return the first pass that can serve a call; the last one serves every call."""
    return next((each for each in passes if each.refuses(call) is None), passes[-1])
