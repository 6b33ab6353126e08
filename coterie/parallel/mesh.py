"""The mesh: every process has a place in each axis, and groups along them for its collectives."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import distributed
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from coterie.parallel.settings import AXES


@dataclass(frozen=True)
class Mesh:
    """The processes of a run by axis.

    Attributes:
        whole: all axes, named as in `AXES`.
        sizes: of each axis.
        reader: which share of the batch's rows this process reads, of `readers`.
        batch: the group over which a batch is divided: rows and tokens of rows.
    """

    whole: DeviceMesh
    sizes: dict[str, int]
    reader: int
    readers: int
    batch: distributed.ProcessGroup

    @property
    def replicas(self) -> DeviceMesh:
        """What FSDP2 works on: replicas × shards, where context counts as shards too."""
        if self.sizes["context"] == 1:
            return self.whole["data", "shard"] if self.sizes["data"] > 1 else self.whole["shard"]
        shards = self.whole["shard", "context"]._flatten("shard_context")
        if self.sizes["data"] == 1:
            return shards
        return self.whole["data", "shard", "context"]._unflatten(  # type: ignore[no-any-return]
            1, (self.sizes["shard"] * self.sizes["context"],), ("shard_context",)
        )


def build_mesh(sizes: dict[str, int], device: torch.device) -> Mesh:
    """Lay the processes of the default group out; every process calls it, with the same sizes."""
    whole = init_device_mesh(device.type, tuple(sizes[axis] for axis in AXES), mesh_dim_names=AXES)
    places = {axis: whole.get_local_rank(axis) for axis in AXES}
    batch = whole["data", "shard", "context"]._flatten("batch").get_group()
    return Mesh(
        whole,
        sizes,
        reader=places["data"] * sizes["shard"] + places["shard"],
        readers=sizes["data"] * sizes["shard"],
        batch=batch,
    )
