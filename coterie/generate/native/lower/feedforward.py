"""Feed-forward layers: a dense one is a slot that every entry takes, routed ones add slots.

MLPs become records; a hybrid one is a deep and a plain one side by side.
"""

from collections.abc import Sequence
from functools import singledispatch
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from coterie.generate.native.builder import TASK_BYTES, Buffer, Builder, LoweringError, Matrix
from coterie.generate.native.kernels.mlp import ROWS_DOWN, ROWS_MIDDLE, ROWS_UP, Rows
from coterie.generate.native.kernels.route import ROUTE, SIGMOID, SLOT, SOFTMAX, Route
from coterie.generate.native.lower.matrices import matrix_of, product_of
from coterie.generate.native.numerics import GELU, GELU_TANH, RELU, RELU_SQUARED, SILU
from coterie.model.experts import MixtureOfExpertsPart
from coterie.model.experts.dispatch import LocalDispatcher
from coterie.model.experts.score import SigmoidScorer, SoftmaxScorer
from coterie.model.experts.select import (
    DynamicSelector,
    GroupLimitedSelector,
    Selector,
    TopKSelector,
)
from coterie.model.feedforward import DensePart
from coterie.model.mlp import (
    ACTIVATIONS,
    Activation,
    DeepMLPPart,
    GatedMLPPart,
    HybridMLPPart,
    MLPPart,
    NullMLPPart,
    PlainMLPPart,
)

_NUMBERS: dict[Activation, int] = {
    "silu": SILU, "gelu": GELU, "gelu_tanh": GELU_TANH, "relu": RELU, "relu_squared": RELU_SQUARED,
}  # fmt: skip


class Record(NamedTuple):
    """One MLP; without hidden channels it returns its input."""

    hidden: int
    activation: int
    gate: Matrix | None
    up: Matrix | None
    middle: Matrix | None
    down: Matrix | None

    @property
    def words(self) -> list[int]:
        """The record as kernels read it."""
        found = [self.hidden, self.activation]
        for matrix in (self.gate, self.up, self.middle, self.down):
            found += matrix.words if matrix else (0, 0, 0, 0)
        return found


def _activation(part: MLPPart) -> int:
    return next(n for name, n in _NUMBERS.items() if ACTIVATIONS[name] is part.activate)


def _matrices(part: MLPPart, builder: Builder, index: int | None) -> dict[str, Matrix]:
    """Return an MLP's matrices by name, of one expert of a pack."""
    weights: dict[str, Tensor | None] = dict(zip(part.names, part.weights(), strict=True))
    found = {}
    for name, weight in weights.items():
        if not name.endswith("_bias"):
            assert weight is not None
            found[name] = matrix_of(builder, weight, weights[f"{name}_bias"], index)
    return found


@singledispatch
def records_of(part: MLPPart, builder: Builder, index: int | None = None) -> list[Record]:
    """Return what one MLP, or one expert of a pack, computes.

    Raises:
        LoweringError: there is no kernel for it.
    """
    raise LoweringError(f"no kernel for {type(part).__name__}")


@records_of.register
def _single(
    part: GatedMLPPart | PlainMLPPart | DeepMLPPart, builder: Builder, index: int | None = None
) -> list[Record]:
    m = _matrices(part, builder, index)
    matrices = (m.get(name) for name in ("gate", "up", "middle", "down"))
    return [Record(m["up"].outer, _activation(part), *matrices)]


@records_of.register
def _hybrid(part: HybridMLPPart, builder: Builder, index: int | None = None) -> list[Record]:
    m, activation = _matrices(part, builder, index), _activation(part)
    deep_up, wide_up = m["deep_up"], m["wide_up"]
    return [
        Record(deep_up.outer, activation, None, deep_up, m["deep_middle"], m["deep_down"]),
        Record(wide_up.outer, activation, None, wide_up, None, m["wide_down"]),
    ]


@records_of.register
def _null(part: NullMLPPart, builder: Builder, index: int | None = None) -> list[Record]:
    return [Record(0, 0, None, None, None, None)] if part.copies else []


_SCORES = {SoftmaxScorer: SOFTMAX, SigmoidScorer: SIGMOID}
Choice = tuple[int, int, int, float]
"""Groups, groups per token, how many experts count in a group's rank, mass to gather."""


class Slots:
    """Where one layer lists its work, and how it computes it.

    Args:
        always: MLPs of every entry.
        experts: those of each expert.
        per_token: experts of an entry, at most.
    """

    def __init__(
        self,
        builder: Builder,
        always: Sequence[Record],
        experts: Sequence[Sequence[Record]] = (),
        per_token: int = 0,
    ) -> None:
        self.builder = builder
        self.records = [*always, *(record for each in experts for record in each)]
        self.members = [len(always)]
        for each in experts:
            self.members.append(self.members[-1] + len(each))
        most = max((len(each) for each in experts), default=0)
        room = builder.entries * (len(always) + per_token * most)
        self.hidden = max((record.hidden for record in self.records), default=1) or 1
        self.table = builder.words([word for record in self.records for word in record.words])
        self.count, self.slots, self.pairs = (
            builder.words([0] * size) for size in (1, SLOT * max(len(self.records), 1), room)
        )
        self.weights = builder.room(room).data_ptr()
        self.state = builder.room(room, self.hidden).data_ptr()
        self.deep = any(record.middle for record in self.records)
        self.middle = builder.room(room, self.hidden).data_ptr() if self.deep else 0

    def add_stages(self, source: Buffer, residual: Buffer | None, together: int) -> Buffer:
        """Add the layers of the MLPs; return where their sum will be.

        Args:
            source: what the MLPs read.
            residual: what their sum is added to.
            together: how many of them an entry takes, for the size of tasks.
        """
        builder, out = self.builder, self.builder.buffer(source.width)
        ups = [record.up for record in self.records if record.up]
        downs = [record.down for record in self.records if record.down]
        read = max(
            (m.row_bytes * (1 + bool(r.gate)) for r in self.records if (m := r.up)), default=1
        )
        up = max(min(TASK_BYTES // read, -(-max((m.outer for m in ups), default=1) // 2)), 1)
        wide = max((matrix.row_bytes for matrix in downs), default=1)
        down = max(min(TASK_BYTES // (wide * together), -(-source.width // 2)), 1)

        room = max(up, down)
        scratch = builder.room(builder.threads, room).data_ptr()

        def rows(chunk: int) -> Rows:
            return Rows(
                self.table, self.count, self.slots, self.pairs, self.weights, chunk, source.width,
                source.address, source.width, self.state, self.hidden, self.middle, out.address,
                out.width, residual.address if residual else 0, residual.width if residual else 0,
                builder.count.data_ptr(), scratch, room,
            )  # fmt: skip

        tasks = -(-self.hidden // up)
        builder.stage(builder.operation(ROWS_UP, rows(up), tasks, self.count))
        if self.deep:
            builder.stage(builder.operation(ROWS_MIDDLE, rows(up), tasks, self.count))
        builder.stage(builder.operation(ROWS_DOWN, rows(down), -(-source.width // down)))
        return out


@singledispatch
def fed(part: nn.Module, builder: Builder, source: Buffer, residual: Buffer | None) -> Buffer:
    """Add a feed-forward layer; return where residual + layer(source) will be.

    Raises:
        LoweringError: it has something that no kernel computes.
    """
    raise LoweringError(f"no kernel for {type(part).__name__}")


@fed.register
def _dense(part: DensePart, builder: Builder, source: Buffer, residual: Buffer | None) -> Buffer:
    records = records_of(part.mlp, builder)
    slots = Slots(builder, records)
    fields = Route(
        builder.count.data_ptr(), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, len(records), 0, 0, 0, 0, 0, 0,
        slots.count, slots.slots, slots.pairs, slots.weights,
    )  # fmt: skip
    builder.stage(builder.operation(ROUTE, fields))
    return slots.add_stages(source, residual, len(records))


@singledispatch
def choice_of(selector: Selector) -> Choice:
    """Return how a selector chooses.

    Raises:
        LoweringError: in a way that the kernel does not know.
    """
    raise LoweringError(f"no kernel for {type(selector).__name__}")


@choice_of.register
def _top_k(selector: TopKSelector) -> Choice:
    return 0, 0, 0, 0.0


@choice_of.register
def _dynamic(selector: DynamicSelector) -> Choice:
    return 0, 0, 0, selector.mass


@choice_of.register
def _group_limited(selector: GroupLimitedSelector) -> Choice:
    return selector.groups, selector.groups_per_token, selector.counted, 0.0


@fed.register
def _routed(
    part: MixtureOfExpertsPart, builder: Builder, source: Buffer, residual: Buffer | None
) -> Buffer:
    router, experts = part.router, part.num_experts
    score = _SCORES.get(type(router.scorer))
    if score is None or type(part.dispatcher) is not LocalDispatcher:
        raise LoweringError("its experts are scored or dispatched in a way that has no kernel")
    groups, open_groups, counted, mass = choice_of(router.selector)
    per_token = router.selector.experts_per_token
    shared = [record for each in part.shared for record in records_of(each, builder)]
    packs = [
        (pack, n) for pack in cast("list[MLPPart]", list(part.experts)) for n in range(pack.count)
    ]
    routed = [records_of(pack, builder, index) for pack, index in packs]
    slots = Slots(builder, shared, routed, per_token)
    logits = builder.buffer(experts)
    products = [product_of(builder, matrix_of(builder, router.weight), source, logits)]
    gate = None
    if part.shared_gate is not None:
        gate = builder.buffer(1)
        weight = matrix_of(builder, part.shared_gate.weight)
        products.append(product_of(builder, weight, source, gate))
    builder.stage(*products)
    fields = Route(
        builder.count.data_ptr(), logits.address, logits.width, experts, per_token, score,
        builder.vector(part.balance.selection_bias), router.renormalise, groups, open_groups,
        counted, len(shared), gate.address if gate else 0, 1, builder.words(slots.members),
        builder.room(2 * experts + max(groups, 1)).data_ptr(),
        builder.room(builder.entries, per_token, dtype=torch.int64).data_ptr(),
        builder.room(builder.entries, per_token).data_ptr(),
        slots.count, slots.slots, slots.pairs, slots.weights,
    )  # fmt: skip
    builder.stage(builder.operation(ROUTE, fields, 1, 0, router.scale, mass))
    return slots.add_stages(source, residual, len(shared) + per_token)
