"""One table says which foreign tensors hold which of ours, and serves both directions.

A `Rule` covers some of our tensors. Each of its layouts names the foreign tensors that hold them
and how to pass from one to the other; the first layout is the one written, all are read. The
shapes expected of foreign tensors follow from ours, by writing tensors without content.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Shapes = Sequence[torch.Size]
Reader = Callable[[list[Tensor], Shapes], list[Tensor]]
Writer = Callable[[list[Tensor]], list[Tensor]]


@dataclass(frozen=True)
class Layout:
    """One way in which foreign tensors hold ours.

    Attributes:
        names: of the foreign tensors.
        to_own: from them, and the shapes of ours, to ours.
        to_foreign: from ours to them.
    """

    names: tuple[str, ...]
    to_own: Reader
    to_foreign: Writer


@dataclass(frozen=True)
class Rule:
    """Some of our tensors and the ways in which foreign ones hold them.

    Attributes:
        own: names in the decoder.
        layouts: the one that is written first.
        exact: whether the tensors stay float32 whatever the others are written as.
        optional: whether the foreign tensors may be absent.
    """

    own: tuple[str, ...]
    layouts: tuple[Layout, ...]
    exact: bool = False
    optional: bool = False


def same(own: str, *foreign: str, exact: bool = False) -> Rule:
    """Return the rule of a tensor that is the same on both sides, under one of some names."""
    layouts = tuple(Layout((name,), lambda x, _: x, lambda x: x) for name in foreign)
    return Rule((own,), layouts, exact)


def turned(own: str, foreign: str) -> Rule:
    """Return the rule of a matrix that the other side holds as [in, out]."""
    layout = Layout((foreign,), lambda x, _: [x[0].mT], lambda x: [x[0].mT])
    return Rule((own,), (layout,))


def joined(owns: Sequence[str], foreign: str, *, turn: bool = False) -> Rule:
    """Return the rule of tensors that the other side holds as one, row below row.

    Args:
        owns: ours, in their order.
        foreign: theirs.
        turn: whether it is held as [in, out].
    """

    def to_own(found: list[Tensor], shapes: Shapes) -> list[Tensor]:
        whole = found[0].mT if turn else found[0]
        return list(whole.split([shape[0] for shape in shapes]))

    def to_foreign(tensors: list[Tensor]) -> list[Tensor]:
        whole = torch.cat(tensors)
        return [whole.mT if turn else whole]

    return Rule(tuple(owns), (Layout((foreign,), to_own, to_foreign),))


def empty(foreign: str, *shape: int) -> Rule:
    """Return the rule of a tensor without values, which the other side holds for nothing."""
    layout = Layout((foreign,), lambda found, _: [], lambda tensors: [torch.empty(shape)])
    return Rule((), (layout,), optional=True)


@dataclass(frozen=True)
class ExpertNames:
    """How one layout names the matrices of gated experts.

    Attributes:
        gate, up, down: with `{e}` where the number of the expert stands, or without it where one
            tensor holds all experts; `gate` and `up` alike where one tensor holds both.
    """

    gate: str
    up: str
    down: str


def experts(own: str, count: int, *layouts: ExpertNames) -> list[Rule]:
    """Return the rules of a pack of gated experts.

    Args:
        own: where the pack stands in the decoder.
        count: how many experts it holds.
        layouts: how they are named, the one to write first.
    """
    gate_up = tuple(_gate_up(each, count) for each in layouts)
    down = tuple(_down(each.down, count) for each in layouts)
    return [
        Rule((f"{own}.gate", f"{own}.up"), gate_up),
        Rule((f"{own}.down",), down),
    ]


def _gate_up(names: ExpertNames, count: int) -> Layout:
    if names.gate == names.up:  # [E, 2F, D], the gates' rows above
        return Layout(
            (names.gate,),
            lambda found, _: list(found[0].chunk(2, dim=1)),
            lambda tensors: [torch.cat(tensors, dim=1)],
        )
    listed = _numbered(names.gate, count) + _numbered(names.up, count)
    return Layout(
        listed,
        lambda found, _: [torch.stack(found[:count]), torch.stack(found[count:])],
        lambda tensors: [*tensors[0].unbind(0), *tensors[1].unbind(0)],
    )


def _down(name: str, count: int) -> Layout:
    if "{e}" not in name:
        return Layout((name,), lambda found, _: found, lambda tensors: tensors)
    return Layout(
        _numbered(name, count),
        lambda found, _: [torch.stack(found)],
        lambda tensors: list(tensors[0].unbind(0)),
    )


def _numbered(name: str, count: int) -> tuple[str, ...]:
    return tuple(name.format(e=number) for number in range(count))
