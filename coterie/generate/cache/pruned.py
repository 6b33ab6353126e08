"""The pruned cache: the first positions, those that drew most attention, and the latest.

Attention gathers on few positions: the first ones, whatever they say (attention sinks: Xiao et al.
2023, StreamingLLM, arXiv:2309.17453), and some heavy hitters (Zhang et al. 2023, H2O,
arXiv:2306.14048). A layer keeps `size` positions: `sinks` first ones, the `heavy` share of the rest
by the attention they have drawn so far, and the latest. What is dropped is lost for good.

Each layer chooses by itself, for all of its heads together (as TOVA does: Oren et al. 2024,
arXiv:2401.06104): keys and values then stay one tensor, for latents as well. Positions count in the
cache, not in the text, as in StreamingLLM and in H2O's code for long texts: what stays moves up to
what comes after it, its keys turned by as much, so that no distance grows beyond `size` and a text
may go on beyond the model's context. A piece that is read at once is seen whole; then the cache is
cut, in strides of an eighth of its size, since a cut copies it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from coterie.foundation.errors import UserError
from coterie.foundation.settings import Settings
from coterie.generate.cache.ragged import Spare, appended, joined, numbered, padded
from coterie.generate.cache.stack import CacheStack, LayerCache, Placement
from coterie.generate.cache.window import kept_of, smaller
from coterie.model import CacheSpec
from coterie.model.cache import NewKeys, NewValues, Seen
from coterie.model.geometry import KeyLayout, UnevenRows

_STRIDES = 8


class PrunedCacheSettings(Settings):
    """Keep so many positions: memory and time of a token stop growing, what is dropped is lost.

    A layer with a window of its own keeps that, and a layer that replaces positions by summaries
    keeps those.
    """

    kind: Literal["pruned"] = "pruned"
    size: int = Field(default=512, ge=2, le=1 << 20, description="positions that a layer keeps")
    heavy: float = Field(
        default=0.5, ge=0, lt=1, description="share that drew most attention; the rest is latest"
    )
    sinks: int = Field(default=4, ge=0, description="first positions, always kept")

    @model_validator(mode="after")
    def _room(self) -> "PrunedCacheSettings":
        if self.budget.latest < 1:
            raise ValueError(
                f"size={self.size} must exceed sinks={self.sinks}: the latest positions are needed"
            )
        return self

    @property
    def reach(self) -> int:
        """The largest distance of a token to one that is kept."""
        return self.size + self.budget.stride

    @property
    def budget(self) -> "Budget":
        """How the positions are shared out."""
        heavy = int((self.size - self.sinks) * self.heavy)
        return Budget(self.size, self.sinks, self.size - self.sinks - heavy)

    def build(self, specs: Sequence[CacheSpec], rollback: int = 0) -> CacheStack:
        """Make an empty cache for layers with these needs.

        Args:
            rollback: what is dropped never comes back, so the last so many positions stay.
        """
        kind = HeavyLayerCache if self.budget.heavy else PrunedLayerCache
        layers = [smaller(spec, rollback) or kind(self.budget, spec, rollback) for spec in specs]
        return CacheStack(layers, rollback)

    def kept(self, spec: CacheSpec, positions: int, size: int) -> int:
        small = kept_of(spec, positions)
        return min(positions, self.reach) if small is None else small


@dataclass(frozen=True)
class Budget:
    """Positions that a layer keeps: the first, the latest, and the heavy hitters between them."""

    size: int
    sinks: int
    latest: int

    @property
    def heavy(self) -> int:
        """How many are chosen by the attention they drew."""
        return self.size - self.sinks - self.latest

    @property
    def stride(self) -> int:
        """How many positions beyond the budget are held before it is cut."""
        return max(self.size // _STRIDES, 1)


class PrunedLayerCache:
    """Keys and values of one layer: the first positions and the latest.

    Args:
        spec: says which of the two tensors is rotated, and how it is turned further.
        rollback: how many of the latest may be taken back, and are held besides.
    """

    def __init__(self, budget: Budget, spec: CacheSpec, rollback: int = 0) -> None:
        self._budget, self._spec, self._rollback = budget, spec, rollback
        self._held: tuple[Tensor, Tensor] | None = None  # each row from slot 0 on
        self._filled: tuple[int, ...] = ()  # slots of each row
        self._totals: tuple[int, ...] = ()  # positions that each row has read
        self._spare = Spare(), Spare()

    def append(self, keys: NewKeys, values: NewValues, rows: UnevenRows | None = None) -> Seen:
        """Add T positions; return them after those kept, which stand right before them.

        Raises:
            UserError: a row holds several documents.
        """
        if rows is not None and rows.starts is not None:
            raise UserError(
                "cache=pruned cannot tell the documents of a row apart: positions count in the "
                "cache. Give each document a row of its own, or use cache=full."
            )
        if self._held is None:
            self._held = keys[:, :, :0], values[:, :, :0]
            self._filled = self._totals = (0,) * keys.shape[0]
        new = (keys.shape[2],) * keys.shape[0] if rows is None else rows.lengths
        held_keys, held_values = self._held = (
            appended(self._held[0], self._filled, keys, rows),
            appended(self._held[1], self._filled, values, rows),
        )
        self._filled = _sums(self._filled, new)
        self._totals = _sums(self._totals, new)
        first = [total - have for total, have in zip(self._totals, self._filled, strict=True)]
        layout = KeyLayout(start_position=first[0])
        if rows is not None:
            at = numbered(first, self._filled, held_keys.shape[2], keys.device)
            layout = KeyLayout(positions=at)
        self._appended(held_keys.shape[2])
        return held_keys, held_values, layout

    def _appended(self, width: int) -> None:
        """Do what is to be done once rows have grown to `width` slots: cut them."""
        self._cut()

    def _cut(self) -> None:
        """Keep what the budget has room for, where a row has grown a stride beyond it."""
        most = self._budget.size + self._rollback
        if max(self._filled) < most + self._budget.stride:
            return
        kept = tuple(min(have, most) for have in self._filled)
        at = self._chosen(kept)
        assert self._held is not None
        # Position of the slot in the cache after the cut, less that before.
        ends = torch.tensor(self._filled, device=at.device) - torch.tensor(kept, device=at.device)
        by = (torch.arange(at.shape[1], device=at.device) - at + ends[:, None]).clamp(min=0)
        keys, values = self._held
        self._held = self._turned(_gathered(keys, at), _gathered(values, at), by)
        self._keep(at)
        self._filled = kept

    def _chosen(self, kept: tuple[int, ...]) -> Int[Tensor, "B S"]:
        """Return the slots that stay, in their order; rows with fewer repeat some at the end."""
        assert self._held is not None
        score = self._score()
        batch, width = score.shape
        at = torch.arange(width, device=score.device).expand(batch, -1)
        ends = torch.tensor(self._filled, device=score.device)[:, None]
        latest = self._budget.latest + self._rollback
        always = (at < self._budget.sinks) | (at >= ends - latest)
        score = score.masked_fill(always, torch.inf).masked_fill(at >= ends, -torch.inf)
        # Of equal scores the later position stays.
        order = score.flip(1).argsort(dim=1, descending=True, stable=True)
        order = (width - 1 - order)[:, : max(kept)]
        counts = torch.tensor(kept, device=score.device)[:, None]
        beyond = torch.arange(max(kept), device=score.device) >= counts
        return order.masked_fill(beyond, width).sort(dim=1).values.clamp(max=width - 1)

    def _score(self) -> Float[Tensor, "B S"]:
        """Return how much each slot deserves to stay: here, the later the more."""
        assert self._held is not None
        keys = self._held[0]
        at = torch.arange(keys.shape[2], device=keys.device, dtype=torch.float32)
        return at.expand(keys.shape[0], -1)

    def _keep(self, at: Int[Tensor, "B S"]) -> None:
        """Let go of what else is known of slots that are dropped."""

    def _turned(
        self, keys: Tensor, values: Tensor, by: Int[Tensor, "B S"]
    ) -> tuple[Tensor, Tensor]:
        """Return keys and values moved up by so many positions."""
        turn = self._spec.turn
        if turn is None:
            return keys, values
        if self._spec.rotated == "keys":
            keys = turn(keys.transpose(1, 2), by).transpose(1, 2).contiguous()
        elif self._spec.rotated == "values":
            values = turn(values.transpose(1, 2), by).transpose(1, 2).contiguous()
        return keys, values

    def select(self, rows: Int[Tensor, " R"]) -> None:
        chosen = rows.tolist()
        self._filled = tuple(self._filled[row] for row in chosen)
        self._totals = tuple(self._totals[row] for row in chosen)
        if self._held is not None:
            keys, values = self._held
            self._held = keys.index_select(0, rows), values.index_select(0, rows)

    def join(self, other: LayerCache) -> None:
        assert isinstance(other, PrunedLayerCache)
        assert self._held is not None
        assert other._held is not None
        self._held = joined(self._held[0], other._held[0]), joined(self._held[1], other._held[1])
        self._filled += other._filled
        self._totals += other._totals

    def truncate(self, lengths: tuple[int, ...]) -> None:
        """Forget each row's positions from `lengths[row]` on.

        Raises:
            ValueError: the cache was cut among them, and what it dropped does not come back.
        """
        back = [total - length for total, length in zip(self._totals, lengths, strict=True)]
        for row, count in enumerate(back):
            cut = self._filled[row] < self._totals[row]
            if count > self._rollback and cut:
                raise ValueError(
                    f"{count} positions cannot be taken back, since others were dropped for them: "
                    f"build the cache with a rollback larger than {self._rollback}"
                )
        self._filled = tuple(have - count for have, count in zip(self._filled, back, strict=True))
        self._totals = lengths
        if self._held is not None:
            keys, values = self._held
            width = max(self._filled)
            self._held = keys[:, :, :width], values[:, :, :width]

    @property
    def placeable(self) -> bool:
        return True

    @property
    def left(self) -> int:
        """How many positions can be written before it is cut."""
        most = self._budget.size + self._rollback
        return most + self._budget.stride - max(self._filled, default=0)

    def placed(self, extra: int, past: tuple[int, ...]) -> Placement:
        assert self._held is not None
        pairs = zip(self._spare, self._held, strict=True)
        (keys, own_keys, start), (values, own_values, _) = (s.memory(h, extra) for s, h in pairs)
        assert start == 0
        self._held = own_keys, own_values
        firsts = (total - have for total, have in zip(past, self._filled, strict=True))
        runs = [[[first, total + extra, -first]] for first, total in zip(firsts, past, strict=True)]
        return Placement(keys, values, torch.tensor(runs))

    def written(self, past: tuple[int, ...]) -> None:
        assert self._held is not None
        count = past[0] - self._totals[0]
        self._totals, self._filled = past, tuple(have + count for have in self._filled)
        more = max(self._filled) - self._held[0].shape[2]
        keys, values = (s.grown(h, more) for s, h in zip(self._spare, self._held, strict=True))
        self._held = keys, values
        self._cut()

    @property
    def nbytes(self) -> int:
        if self._held is None:
            return 0
        return sum(s.nbytes(held) for s, held in zip(self._spare, self._held, strict=True))


class HeavyLayerCache(PrunedLayerCache):
    """The same, and the positions between them that drew most attention."""

    _drawn: Float[Tensor, "B S"] | None = None

    @property
    def placeable(self) -> bool:
        """Whether kernels can read it: they do not say where they looked."""
        return False

    def observe(self, received: Float[Tensor, "B S"]) -> None:
        drawn = received if self._drawn is None else self._drawn + received
        self._drawn = drawn
        self._cut()

    def _appended(self, width: int) -> None:
        if self._drawn is not None:
            self._drawn = padded(self._drawn[:, None], width)[:, 0]

    def _score(self) -> Float[Tensor, "B S"]:
        assert self._drawn is not None, "attention has not said what it looked at"
        return self._drawn

    def _keep(self, at: Int[Tensor, "B S"]) -> None:
        assert self._drawn is not None
        self._drawn = self._drawn.gather(1, at)

    def select(self, rows: Int[Tensor, " R"]) -> None:
        super().select(rows)
        if self._drawn is not None:
            self._drawn = self._drawn.index_select(0, rows)

    def join(self, other: LayerCache) -> None:
        super().join(other)
        assert isinstance(other, HeavyLayerCache)
        assert self._drawn is not None
        assert other._drawn is not None
        self._drawn = joined(self._drawn[:, None], other._drawn[:, None])[:, 0]

    def truncate(self, lengths: tuple[int, ...]) -> None:
        """Forget each row's positions from `lengths[row]` on; what they looked at stays counted."""
        super().truncate(lengths)
        if self._drawn is not None:
            ends = torch.tensor(self._filled, device=self._drawn.device)[:, None]
            drawn = self._drawn[:, : max(self._filled)]
            at = torch.arange(drawn.shape[1], device=drawn.device)
            self._drawn = drawn.where(at < ends, 0)

    @property
    def nbytes(self) -> int:
        return super().nbytes + (0 if self._drawn is None else self._drawn.nbytes)


def _sums(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))


def _gathered(each: Float[Tensor, "B K S C"], at: Int[Tensor, "B s"]) -> Tensor:
    """Return some positions of each row."""
    index = at[:, None, :, None].expand(-1, each.shape[1], -1, each.shape[3])
    return each.gather(2, index)
