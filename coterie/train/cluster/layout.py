"""Layouts: how many devices share what, and which of them a run and a cluster allow."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Literal

from coterie.train.cluster.anatomy import Anatomy

AXES = ("data", "shard", "tensor", "pipeline", "expert", "context")


@dataclass(frozen=True)
class Layout:
    """How a step is laid over devices.

    The mesh is pipeline × data × shard × context × tensor, the last innermost; groups of experts
    lie over data × shard.

    Attributes:
        data: replicas; shard: devices that share each replica's weights and moments (FSDP).
        tensor: devices that share each matrix; pipeline: stages of layers.
        expert: devices that share the experts; context: devices that share each text.
        pieces: micro-batches of a step.
        recompute: as `train.activation_checkpointing`.
    """

    data: int = 1
    shard: int = 1
    tensor: int = 1
    pipeline: int = 1
    expert: int = 1
    context: int = 1
    pieces: int = 1
    recompute: bool | Literal["selective"] = False

    @property
    def world(self) -> int:
        """Devices of it."""
        return self.data * self.shard * self.tensor * self.pipeline * self.context

    @property
    def replicas(self) -> int:
        """Parts that a batch's rows are divided into."""
        return self.data * self.shard

    @property
    def axes(self) -> tuple[int, ...]:
        """The sizes, in the order of `AXES`."""
        return tuple(getattr(self, name) for name in AXES)

    @property
    def words(self) -> tuple[str, ...]:
        """The `key=value` words of `coterie train`."""
        sizes = zip(AXES, self.axes, strict=True)
        found = [f"parallel.{name}={size}" for name, size in sizes if size > 1]
        told = "selective" if self.recompute == "selective" else str(self.recompute).lower()
        return (
            *found,
            f"train.gradient_accumulation={self.pieces}",
            f"train.activation_checkpointing={told}",
        )

    @property
    def sharers(self) -> int:
        """Devices that share a replica's weights and moments: those of a text share them too."""
        return self.shard * self.context

    @property
    def expert_sharers(self) -> int:
        """Devices that share each expert's weights besides those of `expert`."""
        return self.sharers if self.expert == 1 else max(1, self.sharers // self.expert)

    def span(self, axis: str) -> int:
        """Return from the first to the last device of a group, how many lie side by side."""
        spans = {"tensor": self.tensor, "context": self.tensor * self.context}
        spans["shard"] = spans["context"] * self.shard
        spans["expert"] = spans["context"] * self.expert
        spans["data"] = spans["shard"] * self.data
        spans["pipeline"] = spans["data"] * self.pipeline
        return spans[axis]


assert {each.name for each in fields(Layout)} >= set(AXES)


def divisors(number: int) -> list[int]:
    """Return what divides a number, ascending."""
    return [each for each in range(1, number + 1) if number % each == 0]


def layouts(anatomy: Anatomy, world: int, per_node: int) -> Iterator[Layout]:
    """Yield every layout that the run's sizes allow on so many devices.

    Tensor parallelism stays inside a node: its exchanges wait for each other, twice a layer.
    """
    settings = anatomy.settings
    batch, layers = settings.train.batch_size, settings.model.layers
    kept = settings.train.activation_checkpointing
    again: list[bool | Literal["selective"]] = [kept] if kept is True else [kept, True]
    for tensor, pipeline, context in itertools.product(divisors(world), repeat=3):
        replicas, rest = divmod(world, tensor * pipeline * context)
        if (
            rest or batch % replicas or tensor > per_node or layers % pipeline
            or anatomy.shared_heads % tensor or settings.model.context % context
        ):  # fmt: skip
            continue
        rows = batch // replicas
        for shard, pieces, recompute in itertools.product(
            divisors(replicas), divisors(rows), again
        ):
            for expert in divisors(replicas) if anatomy.experts else [1]:
                if anatomy.experts % expert == 0:
                    data = replicas // shard
                    yield Layout(data, shard, tensor, pipeline, expert, context, pieces, recompute)
