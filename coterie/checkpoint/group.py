"""What several processes do together while they save and load: each learns what went wrong in any.

One process alone is a group of one, and does the same without sending anything.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed as dist

from coterie.foundation.errors import CoterieError, UserError
from coterie.foundation.files import atomic_directory

T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """A group of processes; `group` None: this one alone, else one whose back end is gloo.

    Whoever saves in the background needs a group of its own, for what is sent in two threads may
    not be mixed.
    """

    group: dist.ProcessGroup | None = None

    @property
    def rank(self) -> int:
        """The number of this process in the group."""
        return 0 if self.group is None else dist.get_rank(self.group)

    @property
    def world(self) -> int:
        """The number of processes."""
        return 1 if self.group is None else dist.get_world_size(self.group)

    def every(self, action: Callable[[], T]) -> list[T]:
        """Do something in every process; return what came of it in each, by rank.

        Raises:
            UserError: it was refused in one; all raise that, and say in which.
        """
        if self.group is None:
            return [action()]
        told: tuple[Any, Exception | None]
        try:
            told = action(), None
        except Exception as error:
            told = None, _portable(error)
        gathered: list[Any] = [None] * self.world
        dist.all_gather_object(gathered, told, self.group)
        raise_first({rank: error for rank, (_, error) in enumerate(gathered) if error is not None})
        return [found for found, _ in gathered]

    def first(self, action: Callable[[], T]) -> T:
        """Do something in the first process and return in all what came of it there.

        Raises:
            UserError: it was refused; all raise that.
        """
        if self.group is None:
            return action()
        told: list[Any] = [None]
        if self.rank == 0:
            try:
                told = [(action(), None)]
            except Exception as error:
                told = [(None, _portable(error))]
        dist.broadcast_object_list(told, group=self.group, group_src=0)
        found, error = told[0]
        if error is not None:
            raise error
        return found

    @contextlib.contextmanager
    def directory(self, target: Path) -> Iterator[Path]:
        """Yield a directory that becomes `target` if all processes end without an error.

        The first process makes and renames it, as `atomic_directory` does, which all must see.
        """
        with contextlib.ExitStack() as stack:
            yield self.first(lambda: stack.enter_context(atomic_directory(target, replace=True)))
            self.first(stack.pop_all().close)


def raise_first(errors: Mapping[int, BaseException]) -> None:
    """Raise what went wrong in the lowest of some ranks, saying in which; nothing if there is none.

    Raises:
        UserError: as its rank raised it.
    """
    if not errors:
        return
    rank, error = min(errors.items())
    others = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    if isinstance(error, CoterieError):
        said = f"Rank {rank}{others}: {error.message}"
        raise type(error)(said, hint=error.hint) from error
    raise RuntimeError(f"Rank {rank}{others}: {error}") from error


def _portable(error: Exception) -> Exception:
    """Return an error that another process can read: of what is none of ours, its words."""
    if not isinstance(error, CoterieError):
        return RuntimeError(f"{type(error).__name__}: {error}")
    kind = type(error) if type(error).__init__ is CoterieError.__init__ else UserError
    return kind(error.message, error.hint)
