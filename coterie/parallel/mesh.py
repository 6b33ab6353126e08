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
        stage: the group of all that hold the same layers.
        experts: the same processes with those that divide rows as groups of experts; None: every
            process that divides rows has all experts.
    """

    whole: DeviceMesh
    sizes: dict[str, int]
    reader: int
    readers: int
    batch: distributed.ProcessGroup
    stage: distributed.ProcessGroup
    experts: DeviceMesh | None = None

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


def build_mesh(sizes: dict[str, int], device: torch.device, expert: int = 1) -> Mesh:
    """Lay the processes of the default group out; every process calls it, with the same sizes.

    Args:
        expert: processes that divide the experts, neighbours among those that divide rows.
    """
    whole = init_device_mesh(device.type, tuple(sizes[axis] for axis in AXES), mesh_dim_names=AXES)
    places = {axis: whole.get_local_rank(axis) for axis in AXES}
    batch = whole["data", "shard", "context"]._flatten("batch").get_group()
    experts, rows = None, sizes["data"] * sizes["shard"]
    if expert > 1:
        named = {"pipeline": sizes["pipeline"], "expert_replicas": rows // expert}
        named |= {"expert": expert, "context": sizes["context"], "tensor": sizes["tensor"]}
        experts = init_device_mesh(device.type, (*named.values(),), mesh_dim_names=(*named,))
    return Mesh(
        whole,
        sizes,
        reader=places["data"] * sizes["shard"] + places["shard"],
        readers=rows,
        batch=batch,
        stage=whole["data", "shard", "context", "tensor"]._flatten("stage").get_group(),
        experts=experts,
    )
