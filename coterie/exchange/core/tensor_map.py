"""A tensor map says which foreign tensors hold which of ours, and serves both directions.

An `Entry` covers some of our tensors. Each of its layouts names the foreign tensors that hold them
and converts between the two; the first layout is written, all are read. The expected shapes of
foreign tensors follow from ours, by converting meta tensors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Shapes = Sequence[torch.Size]
ToOwn = Callable[[list[Tensor], Shapes], list[Tensor]]
ToForeign = Callable[[list[Tensor]], list[Tensor]]


@dataclass(frozen=True)
class Layout:
    """One way in which foreign tensors hold ours.

    Attributes:
        names: of the foreign tensors.
        to_own: from the foreign tensors and the shapes of ours to ours.
        to_foreign: from ours to the foreign tensors.
    """

    names: tuple[str, ...]
    to_own: ToOwn
    to_foreign: ToForeign


@dataclass(frozen=True)
class Entry:
    """Some of our tensors and the ways in which foreign ones hold them.

    Attributes:
        own: names in the decoder.
        layouts: the one to write first.
        exact: whether the tensors stay float32 whatever the others are written as.
        optional: whether the foreign tensors may be absent.
    """

    own: tuple[str, ...]
    layouts: tuple[Layout, ...]
    exact: bool = False
    optional: bool = False


def same(own: str, *foreign: str, exact: bool = False) -> Entry:
    """Map a tensor that is equal on both sides, under any of the foreign names."""
    return Entry((own,), tuple(_unchanged(name) for name in foreign), exact)


def copied(own: str, foreign: str) -> Entry:
    """Map a tensor that another entry maps too, to a copy of it that may be absent."""
    return Entry((own,), (_unchanged(foreign),), optional=True)


def halves_swapped(own: str, foreign: str) -> Entry:
    """Map a matrix of which the other side holds the latter half of the columns first."""

    def swap(tensors: list[Tensor]) -> list[Tensor]:
        return [tensors[0].roll(tensors[0].shape[1] // 2, dims=1)]

    return Entry((own,), (Layout((foreign,), lambda found, _: swap(found), swap),))


def transposed(own: str, foreign: str) -> Entry:
    """Map a matrix that the other side holds as [in, out]."""
    layout = Layout((foreign,), lambda x, _: [x[0].mT], lambda x: [x[0].mT])
    return Entry((own,), (layout,))


def joined(owns: Sequence[str], foreign: str, *, transpose: bool = False) -> Entry:
    """Map tensors whose rows the other side holds in one, below each other.

    Args:
        transpose: whether it is held as [in, out].
    """

    def to_own(found: list[Tensor], shapes: Shapes) -> list[Tensor]:
        whole = found[0].mT if transpose else found[0]
        return list(whole.split([shape[0] for shape in shapes]))

    def to_foreign(tensors: list[Tensor]) -> list[Tensor]:
        whole = torch.cat(tensors)
        return [whole.mT if transpose else whole]

    return Entry(tuple(owns), (Layout((foreign,), to_own, to_foreign),))


def empty(foreign: str, *shape: int) -> Entry:
    """Map nothing to a tensor without elements that the other side expects."""
    layout = Layout((foreign,), lambda found, _: [], lambda tensors: [torch.empty(shape)])
    return Entry((), (layout,), optional=True)


@dataclass(frozen=True)
class ExpertNames:
    """How one layout names the matrices of gated experts.

    Attributes:
        gate, up, down: with `{e}` for the number of the expert, or without it where one tensor
            [E, out, in] holds all experts; `gate` and `up` alike where one tensor [E, 2F, D] holds
            both, the gates' rows first.
    """

    gate: str
    up: str
    down: str

    def under(self, prefix: str) -> "ExpertNames":
        return ExpertNames(prefix + self.gate, prefix + self.up, prefix + self.down)


def experts(own: str, count: int, *layouts: ExpertNames) -> list[Entry]:
    """Map a pack of gated experts.

    Args:
        layouts: their names, the ones to write first.
    """
    return [
        Entry((f"{own}.gate", f"{own}.up"), tuple(_gate_up(each, count) for each in layouts)),
        Entry((f"{own}.down",), tuple(_down(each.down, count) for each in layouts)),
    ]


def _unchanged(*names: str) -> Layout:
    return Layout(names, lambda found, _: found, lambda tensors: tensors)


def _gate_up(names: ExpertNames, count: int) -> Layout:
    if names.gate == names.up:
        return Layout(
            (names.gate,),
            lambda found, _: list(found[0].chunk(2, dim=1)),
            lambda tensors: [torch.cat(tensors, dim=1)],
        )
    if "{e}" not in names.gate:
        return _unchanged(names.gate, names.up)
    return Layout(
        _numbered(names.gate, count) + _numbered(names.up, count),
        lambda found, _: [torch.stack(found[:count]), torch.stack(found[count:])],
        lambda tensors: [*tensors[0].unbind(0), *tensors[1].unbind(0)],
    )


def _down(name: str, count: int) -> Layout:
    if "{e}" not in name:
        return _unchanged(name)
    return Layout(
        _numbered(name, count),
        lambda found, _: [torch.stack(found)],
        lambda tensors: list(tensors[0].unbind(0)),
    )


def _numbered(name: str, count: int) -> tuple[str, ...]:
    return tuple(name.format(e=number) for number in range(count))
