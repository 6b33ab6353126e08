"""What a mixer says: which rows of which source make up a step's batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from coterie.foundation.errors import DataError


class Source(NamedTuple):
    """What there is to mix: its name, its tokens, and how many rows read each of them once."""

    name: str
    tokens: int
    rows: int


@dataclass(frozen=True, slots=True)
class Share:
    """Consecutive rows of one source, numbered through all of its epochs."""

    source: int
    first: int
    count: int


class Mixer(Protocol):
    """Chooses rows as a pure function of (seed, step, rank, world); it keeps no state."""

    def shares(self, step: int, batch_size: int, rank: int, world: int) -> Sequence[Share]:
        """Return what one rank reads in a step, in the order of the batch's rows.

        The union over ranks must not depend on how many there are, and over the steps each source's
        rows must come in order, none skipped.

        Raises:
            DataError: the batch cannot be divided among the ranks, or nothing is left to read.
        """
        ...


def part_of(step: int, batch_size: int, rank: int, world: int) -> tuple[int, int]:
    """Return the number of a rank's first row, through all steps, and how many it reads in a step.

    Raises:
        DataError: the batch cannot be divided among the ranks.
    """
    if batch_size < 1 or batch_size % world:
        raise DataError(f"A batch of {batch_size} rows cannot be shared by {world} ranks.")
    part = batch_size // world
    return step * batch_size + rank * part, part
