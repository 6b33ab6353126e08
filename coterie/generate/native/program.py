"""One decoder as a program, and how a step of it is asked for."""

from collections.abc import Mapping, Sequence, Set

import torch
from jaxtyping import Float
from torch import Tensor

from coterie.generate.cache.stack import Placement
from coterie.generate.cache.summaries import RunPlacement
from coterie.generate.native.builder import Buffer, Builder, LoweringError
from coterie.generate.native.choices import Choices
from coterie.generate.native.crew import Crew
from coterie.generate.native.lower.model import lower
from coterie.generate.sampling.rule import Chosen, Rule
from coterie.model import Decoder
from coterie.model.position.rotary import RotaryPositionPart

Memory = Placement | RunPlacement
"""Where what a cache holds of one layer is."""


class Program:
    """Computes the logits of single tokens of up to `entries` rows, or of several tokens of fewer.

    It reads the decoder's own parameters where they lie; they may change in place, and must not
    while it runs. Logits are handed out as a view that the next step overwrites.

    Args:
        decoder: on the CPU.
        entries: the most tokens of one step.
        threads: None: as many as torch uses.

    Raises:
        LoweringError: something of the decoder has no kernel.
    """

    def __init__(self, decoder: Decoder, entries: int = 16, threads: int | None = None) -> None:
        self.entries, self._context = entries, decoder.settings.context
        self._position = decoder.position
        self.threads = threads or torch.get_num_threads()
        builder = Builder(entries, self.threads, len(decoder.blocks))
        logits = lower(decoder, builder)
        self._builder = builder
        self._logits = _memory(builder, logits)
        self._hidden = _memory(builder, builder.hidden) if builder.hidden else None
        self._choices = Choices(builder, logits)
        self._sources = [(each, each.data_ptr()) for each in builder.sources]
        self._tables = builder.tables()
        self._crew = Crew(self._tables, builder.kept, self.threads)
        self._count, self._tokens = builder.count.numpy(), builder.tokens.numpy()
        self._positions, self._rows = builder.positions.numpy(), builder.rows.numpy()
        self._caches = builder.caches.numpy()
        self._angles: list[Tensor] = []
        self._reach = 0
        self._caches_of: list[tuple[int, ...]] = []
        self._placed: Sequence[Memory] = ()

    @property
    def lookback(self) -> int:
        """Tokens before each that a step must be told of."""
        return 0 if self._builder.past is None else self._builder.past.shape[1] - 1

    @property
    def carries(self) -> Set[str]:
        """Names of what parts know of each row's past."""
        return self._builder.states.keys()

    def know(self, states: Mapping[str, Tensor], rows: int) -> None:
        """Set what parts know of the past of the first rows."""
        for name, room in self._builder.states.items():
            room[:rows] = states[name]

    def known(self, rows: int) -> dict[str, Tensor]:
        """Return what parts know of it now."""
        return {name: room[:rows].clone() for name, room in self._builder.states.items()}

    def current(self) -> bool:
        """Bring copies up to date; return whether the parameters still lie where they did."""
        for source, copied in self._builder.copies:
            copied.copy_(source)
        return all(source.data_ptr() == address for source, address in self._sources)

    def step(
        self,
        tokens: Sequence[int],
        rows: Sequence[int],
        positions: Sequence[int],
        caches: Sequence[Memory],
        past: Sequence[Sequence[int]] = (),
    ) -> Float[Tensor, "n V"]:
        """Read tokens and return the logits of what follows each; their keys are kept.

        Args:
            tokens: n of them, in the order of positions where several are of one row.
            caches: where each layer's positions are, with room for the new ones.
            past: for each token up to `lookback` tokens before it, −1 for none.
        """
        self._prepare(tokens, rows, positions, 1, caches, past)
        self._crew.step()
        return self._logits[: len(tokens)]

    def steps(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        caches: Sequence[Memory],
        rules: Sequence[Rule],
        most: int,
        past: Sequence[Sequence[int]] = (),
    ) -> list[Chosen]:
        """Read one token of each row, choose the next, read that, and so on.

        Args:
            caches: where each layer's positions are, with room for `most` more.
            most: tokens to choose, at most `MOST_STEPS`.
            past: as of `step`.
        """
        self._prepare(tokens, range(len(tokens)), positions, most, caches, past)
        with self._choices.switched_on(rules, most):
            self._crew.steps(self._choices.records.data_ptr(), len(tokens), most)
            return self._choices.chosen(len(tokens))

    def _prepare(
        self,
        tokens: Sequence[int],
        rows: Sequence[int],
        positions: Sequence[int],
        further: int,
        caches: Sequence[Memory],
        past: Sequence[Sequence[int]],
    ) -> None:
        """Write down what the next step is to read, of rows that go `further` positions on."""
        number = len(tokens)
        assert 0 < number <= self.entries, f"a step reads up to {self.entries} tokens"
        self._count[0] = number
        self._tokens[:number], self._rows[:number] = tokens, rows
        self._positions[:number] = positions
        self._reach_to(max(positions) + further)
        self._place(caches)
        if self._builder.past is not None:
            self._tell(tokens, past)

    def hidden(self, number: int) -> Float[Tensor, "n D"]:
        """Return what the last block made of the tokens of the latest step, of which a view."""
        assert self._hidden is not None
        return self._hidden[:number]

    def _tell(self, tokens: Sequence[int], past: Sequence[Sequence[int]]) -> None:
        """Write down the tokens that end with each."""
        assert self._builder.past is not None
        history, padding = self._builder.past.numpy(), self._builder.padding
        history[: len(tokens)] = padding
        for row, (token, before) in enumerate(zip(tokens, past, strict=True)):
            known = [each if each >= 0 else padding for each in before][-self.lookback :]
            history[row, self.lookback - len(known) :] = [*known, token]

    def _place(self, caches: Sequence[Memory]) -> None:
        """Say where the caches lie, if they have moved."""
        self._placed = caches  # what lies there is not freed before it is read
        where = [each.words() for each in caches]
        if where != self._caches_of:
            self._caches_of = where
            self._caches[:, : len(where[0])] = where

    def _reach_to(self, positions: int) -> None:
        """Make the tables of angles long enough."""
        if positions <= self._reach:
            return
        part = self._position
        self._reach = max(self._context, 2 * self._reach, positions)
        if part.stable is not None:  # beyond, angles are others for the whole text
            self._reach = min(self._reach, part.stable)
        self._angles = []
        for rotated, place in self._builder.turns.items():
            assert isinstance(part, RotaryPositionPart)
            tables = part.angles(self._reach, rotated)
            self._angles += tables
            place[:] = torch.tensor([each.data_ptr() for each in tables])


def _memory(builder: Builder, buffer: Buffer) -> Tensor:
    return next(each for each in builder.kept if each.data_ptr() == buffer.address)


__all__ = ["LoweringError", "Program"]
