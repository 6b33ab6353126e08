"""How a run is divided among processes: the settings `parallel`, and all that is wrong with them.

Nothing here changes what is learnt: the same global batch gives the same losses whatever the
layout, so a resumed run may have another one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from coterie.foundation.errors import SettingsError
from coterie.foundation.settings import Settings
from coterie.model import DecoderSettings
from coterie.parallel.expert import expert_problems
from coterie.parallel.pipeline import ScheduleName, pipeline_problems
from coterie.parallel.tensor import tensor_problems

AXES = ("pipeline", "data", "shard", "context", "tensor")
"""The mesh's dimensions, outermost first: neighbouring ranks, which talk the fastest, share the
last. Groups of experts are laid over `data` and `shard`, so they take no processes of their own."""


class Parallel(Settings):
    """Processes by what they divide; their product is how many there are.

    `data` and `shard` both divide the rows of a batch: with `data` alone each process holds the
    whole model, with `shard` a part of it that the others gather (FSDP2), with both groups of
    `shard` processes hold it once each (HSDP). `tensor` divides matrices, `pipeline` layers,
    `context` the tokens of a row, `expert` the experts among processes that divide rows.
    """

    data: int | None = Field(
        default=None, ge=1, description="replicas; None: as many as the other sizes leave"
    )
    shard: int = Field(default=1, ge=1, description="processes that hold one replica in parts")
    tensor: int = Field(default=1, ge=1, description="processes that divide each matrix")
    sequence: bool = Field(
        default=False,
        description="processes that divide matrices divide the tokens of the stream between them",
    )
    pipeline: int = Field(default=1, ge=1, description="stages that the layers are divided into")
    expert: int = Field(default=1, ge=1, description="processes that divide the experts")
    context: int = Field(default=1, ge=1, description="processes that divide the tokens of a row")
    schedule: ScheduleName = Field(
        default="1f1b",
        description="the order of micro-batches through stages; all but 1f1b give each process two",
    )
    gather: Literal["float32", "bfloat16"] = Field(
        default="float32",
        description="type that sharded weights travel in; bfloat16 halves the bytes, and all but "
        "routers is computed from rounded weights",
    )
    prefetch: int = Field(
        default=1,
        ge=0,
        le=8,
        description="blocks whose weights are gathered ahead of the one at work",
    )
    keep_gathered: bool = Field(
        default=False,
        description="keep gathered weights from the forward to the backward pass: a third less to "
        "send, for the memory of the whole model",
    )
    deepspeed: dict[str, Any] | None = Field(
        default=None,
        description="DeepSpeed's own configuration, as its JSON has it; DeepSpeed then divides "
        "parameters, gradients and moments (ZeRO)",
    )
    timeout: float = Field(
        default=600.0, gt=0, description="seconds after which a process that is waited for is lost"
    )

    def sizes(self, world: int) -> dict[str, int]:
        """Return the mesh's sizes by axis, for so many processes.

        Raises:
            SettingsError: they do not fit.
        """
        named = {axis: getattr(self, axis) for axis in AXES}
        others = math.prod(size for size in named.values() if size is not None)
        if self.data is None:
            named["data"] = max(world // others, 1)
        if math.prod(named.values()) != world:
            told = " × ".join(f"{axis} {size}" for axis, size in named.items() if size > 1)
            raise SettingsError(
                f"parallel: {told or 'one process'} makes {math.prod(named.values())} processes; "
                f"there are {world}.",
                hint="Start as many (coterie train … --devices N), or leave parallel.data out: it "
                "takes what the others leave.",
            )
        return named

    def require(
        self, world: int, model: DecoderSettings, rows: dict[int, int], accumulation: int
    ) -> dict[str, int]:
        """Return the mesh's sizes after looking at everything that must be divisible.

        Args:
            world: processes.
            model: the decoder.
            rows: how many rows a step has, by their length.
            accumulation: micro-batches of a step.

        Raises:
            SettingsError: every problem, in one list.
        """
        sizes = self.sizes(world)
        found = list(self._problems(sizes, model, rows, accumulation))
        if found:
            raise SettingsError(
                "This run cannot be divided so:\n" + "\n".join(f"  {each}" for each in found),
                hint="`coterie plan PRESET --gpus N` proposes a layout that fits.",
            )
        return sizes

    def _problems(
        self, sizes: dict[str, int], model: DecoderSettings, rows: dict[int, int], accumulation: int
    ) -> Iterator[str]:
        readers = sizes["data"] * sizes["shard"]
        if self.deepspeed is not None and max(*sizes.values(), self.expert) > sizes["data"]:
            yield "parallel.deepspeed: DeepSpeed divides by itself; leave the other sizes out"
        if self.context > 1:
            yield "parallel.context: training does not divide the tokens of a row; set it to 1"
        for problem in (
            *expert_problems(model, self.expert),
            *tensor_problems(model, self.tensor),
            *pipeline_problems(model, self.pipeline, self.schedule, accumulation),
        ):
            yield f"parallel.{problem}"
        if self.sequence:
            yield from self._sequence_problems(model, rows)
        for length, count in rows.items():
            if count % (readers * accumulation):
                yield (
                    f"parallel.data × parallel.shard: {count} rows of {length} tokens in "
                    f"{accumulation} micro-batches cannot be shared by {readers} processes; "
                    f"train.batch_size must be a multiple of {readers * accumulation}"
                )
            if length % self.context:
                yield f"parallel.context={self.context} does not divide rows of {length} tokens"
        if readers % self.expert:
            yield (
                f"parallel.expert={self.expert} does not divide parallel.data × parallel.shard "
                f"= {readers}, the processes among which it divides experts"
            )

    def _sequence_problems(self, model: DecoderSettings, rows: dict[int, int]) -> Iterator[str]:
        if self.tensor == 1:
            yield "parallel.sequence divides tokens among those that divide matrices; tensor=1"
        if self.pipeline > 1:
            yield "parallel.sequence cannot send parts of tokens from stage to stage (pipeline)"
        if model.dropout.rate:
            yield "parallel.sequence: what model.dropout drops would depend on it; set it to 0"
        for length in rows:
            if length % self.tensor:
                yield f"parallel.sequence: tensor={self.tensor} does not divide {length} tokens"
