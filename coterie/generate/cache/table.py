"""Which blocks hold the positions of each row, and what that means for one call."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coterie.generate.cache.pool import BlockPool
from coterie.generate.cache.prefix import PrefixIndex, State
from coterie.model.geometry import UnevenRows


@dataclass
class Row:
    """One text: its tokens, its blocks and the digests of those that are full."""

    tokens: list[int] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Places:
    """Where one call writes and reads, the same for all layers.

    Attributes:
        length: positions of the longest row afterwards.
        blocks: of each row, padded with any; None: one row, whose blocks follow each other.
        first: where the row then begins.
        slots: of each new position, row by row; None: the last of that row.
        real: row and place of each new position where rows differ; None: all are real.
    """

    length: int
    blocks: Int[Tensor, "B n"] | None
    first: int
    slots: Int[Tensor, " N"] | None
    real: tuple[Int[Tensor, " N"], Int[Tensor, " N"]] | None

    def write(self, memory: Float[Tensor, "K P C"], new: Float[Tensor, "B K T C"]) -> None:
        """Put new positions into the memory of a layer."""
        if self.slots is None:
            end = self.first + self.length
            memory[:, end - new.shape[2] : end] = new[0]
            return
        by_head = new.transpose(0, 1)
        each = by_head.flatten(1, 2) if self.real is None else by_head[:, *self.real]
        memory.index_copy_(1, self.slots, each)

    def read(self, memory: Float[Tensor, "K P C"], size: int) -> Float[Tensor, "B K S C"]:
        """Return all positions of all rows: a slice where they lie together, else a copy."""
        if self.blocks is None:
            return memory[None, :, self.first : self.first + self.length]
        found = memory.unflatten(1, (-1, size)).index_select(1, self.blocks.flatten())
        rows = found.unflatten(1, tuple(self.blocks.shape)).flatten(2, 3)
        return rows.transpose(0, 1)[:, :, : self.length]


class BlockTable:
    """The rows of a batch; what they hold is released when the table goes."""

    def __init__(self, pool: BlockPool) -> None:
        self.pool = pool
        self.rows: list[Row] = []
        self.places: Places | None = None
        self._told: list[list[int]] = []  # the blocks for which `_runs` was made

    def adopt(self, texts: Sequence[Sequence[int]]) -> tuple[int, State]:
        """Begin rows with what is known of their texts; return how many tokens, and the state.

        The last token of a text is never among them, since its logits are wanted.
        """
        assert not self.rows
        size = self.pool.size
        found = [self.pool.index.match(text[:-1], size) for text in texts]
        count = min(len(blocks) for blocks, _, _ in found)
        if len(texts) > 1:
            # Rows go on from the same place, whose state only matters if there is one.
            count = count if not any(state for _, _, state in found) else 0
        self.rows = []
        for text, (blocks, digests, _) in zip(texts, found, strict=True):
            for block in blocks[:count]:
                self.pool.hold(block)
            self.rows.append(Row(list(text[: count * size]), blocks[:count], digests[:count]))
        return count * size, found[0][2] if count else {}

    def reserve(self, tokens: Int[Tensor, "B T"], rows: UnevenRows | None) -> None:
        """Have blocks for new tokens, which nobody else writes to or reads."""
        batch, number = tokens.shape
        new = (number,) * batch if rows is None else rows.lengths
        self.rows = self.rows or [Row() for _ in range(batch)]
        self.take(new)
        self.places = self._places(tokens.device, new, rows)

    def take(self, new: tuple[int, ...]) -> None:
        """Have blocks for so many new tokens of each row, which nobody else writes to or reads."""
        size = self.pool.size
        for row, count in zip(self.rows, new, strict=True):
            held = len(row.tokens)
            if count and held % size:
                row.blocks[held // size] = self.pool.own(row.blocks[held // size])
            while len(row.blocks) * size < held + count:
                row.blocks.append(self.pool.take())

    def runs(self) -> Int[Tensor, "B n 3"]:
        """Return where the positions of each row lie: first, end, and by how much it is moved."""
        blocks = [row.blocks for row in self.rows]
        if blocks != self._told:
            self._told = [list(each) for each in blocks]
            each = [_runs(row, self.pool.size) for row in blocks]
            most = max(map(len, each))
            self._runs = torch.tensor([row + [(0, 0, 0)] * (most - len(row)) for row in each])
        return self._runs

    def _places(
        self, device: torch.device, new: tuple[int, ...], rows: UnevenRows | None
    ) -> Places:
        size = self.pool.size
        length = max(len(row.tokens) + count for row, count in zip(self.rows, new, strict=True))
        blocks = self.rows[0].blocks
        if rows is None and len(self.rows) == 1 and blocks[-1] - blocks[0] == len(blocks) - 1:
            return Places(length, None, blocks[0] * size, None, None)
        width = -(-length // size)
        padded = [(row.blocks + [0] * width)[:width] for row in self.rows]
        table = torch.tensor(padded, device=device)
        if rows is None:
            held = len(self.rows[0].tokens)
            at = torch.arange(held, held + new[0], device=device).expand(len(self.rows), -1)
            return Places(length, table, 0, _slots(table, at, size).flatten(), None)
        row, place, at = rows.real
        slots = table[row, at // size] * size + at % size
        return Places(length, table, 0, slots, (row, place))

    def commit(
        self, tokens: Int[Tensor, "B T"], real: tuple[int, ...] | None, state: State | None
    ) -> None:
        """Make new tokens, whose keys and values are written, part of the rows.

        Args:
            real: how many of each; None: all.
            state: what parts of the decoder carry on; None: no text may share these blocks.
        """
        size, index = self.pool.size, self.pool.index
        counts = (tokens.shape[1],) * tokens.shape[0] if real is None else real
        for number, (row, new) in enumerate(zip(self.rows, tokens.tolist(), strict=True)):
            row.tokens += new[: counts[number]]
            while state is not None and (len(row.digests) + 1) * size <= len(row.tokens):
                start = len(row.digests) * size
                part = row.tokens[start : start + size]
                before = row.digests[-1] if row.digests else index.root
                row.digests.append(PrefixIndex.digest(before, part))
                after: State | None = {}
                if state:  # it is known after the last token alone
                    here = start + size == len(row.tokens)
                    after = {k: v[number : number + 1].clone() for k, v in state.items()}
                    after = after if here else None
                index.add(row.digests[-1], row.blocks[start // size], part, after)

    def select(self, chosen: Sequence[int]) -> None:
        """Keep only these rows, in this order; copies share their blocks until one is written."""
        before = self.rows
        self.rows = [
            Row(list(before[n].tokens), list(before[n].blocks), list(before[n].digests))
            for n in chosen
        ]
        for row in self.rows:
            for block in row.blocks:
                self.pool.hold(block)
        self._release(before)

    def join(self, other: "BlockTable") -> None:
        """Take over the rows of another table; blocks of another pool are copied."""
        if other.pool is not self.pool:
            copies = {block: self.pool.copied(block, other.pool) for block in other.held()}
            shared = set[int]()
            for row in other.rows:
                for block in row.blocks:
                    (self.pool.hold if copies[block] in shared else shared.add)(copies[block])
            rows = [Row(row.tokens, [copies[block] for block in row.blocks]) for row in other.rows]
        else:
            rows, other.rows = other.rows, []
        self.rows += rows

    def truncate(self, lengths: tuple[int, ...]) -> None:
        """Forget each row's tokens from `lengths[row]` on."""
        size = self.pool.size
        for row, length in zip(self.rows, lengths, strict=True):
            needed = -(-length // size)
            for block in reversed(row.blocks[needed:]):
                self.pool.release(block)
            del row.blocks[needed:], row.tokens[length:], row.digests[length // size :]

    def held(self) -> set[int]:
        return {block for row in self.rows for block in row.blocks}

    def _release(self, rows: Sequence[Row]) -> None:
        for row in rows:
            for block in reversed(row.blocks):  # a text's end is forgotten before its beginning
                self.pool.release(block)

    def __del__(self) -> None:
        self._release(self.rows)


def _runs(blocks: Sequence[int], size: int) -> list[tuple[int, int, int]]:
    """Return the runs of a row's positions, those that lie together as one."""
    runs: list[tuple[int, int, int]] = []
    for number, block in enumerate(blocks):
        first, shift = number * size, (block - number) * size
        if runs and runs[-1][2] == shift:
            runs[-1] = (runs[-1][0], first + size, shift)
        else:
            runs.append((first, first + size, shift))
    return runs


def _slots(table: Int[Tensor, "B n"], at: Int[Tensor, "B T"], size: int) -> Int[Tensor, "B T"]:
    return table.gather(1, at // size) * size + at % size
