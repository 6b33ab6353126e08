"""Tensors of several processes to files and back, through torch's distributed checkpoints (DCP).

DCP plans who writes and reads which block of what tensor, whatever meshes it was and will be laid
over. Its own files are pickled; here it writes and reads safetensors, which run no code: a folder
with a part of each process, which torch's `HuggingFaceStorageReader` reads too. What one process
wrote as a single file is read the same way.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, SavePlan, SavePlanner
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from coterie.checkpoint.group import Group, raise_first
from coterie.checkpoint.layout import part_name
from coterie.checkpoint.tensor_file import PLACES, Part, find_wholes, open_tensors, save_tensors
from coterie.foundation.disk import explain_disk_errors, sync_file


def write_parts(tensors: Mapping[str, Tensor], folder: Path, group: Group) -> int:
    """Write the blocks that the processes hold, each once; return how many this one wrote.

    Args:
        tensors: by name; what is no DTensor is the same wherever it has the same name.
        folder: stands already, for all of them; only the first writes a part without a block.

    Raises:
        UserError: the disk of some rank is full or not writable; every rank raises it.
    """
    writer = _Writer(folder / part_name(group.rank), first=group.rank == 0)
    plain = {name: tensor.detach() for name, tensor in tensors.items()}
    try:
        save(plain, storage_writer=writer, **_of(group))
    except CheckpointException as error:
        raise_first({rank: told[0] for rank, told in error.failures.items()})
        raise
    return writer.blocks


def read_into(tensors: Mapping[str, Tensor], path: Path, group: Group) -> None:
    """Read stored values into tensors, each process into the blocks that it holds.

    Args:
        tensors: by name, DTensors over any mesh or whole ones; their type may be another.
        path: a file or a folder of parts.

    Raises:
        CheckpointError: it cannot be read by some rank; every rank raises it.
        ValueError: a name is missing, or a shape another.
    """
    plain = {name: tensor.detach() for name, tensor in tensors.items()}
    with open_tensors(path) as opened:
        try:
            load(plain, storage_reader=_Reader(opened), **_of(group))
        except CheckpointException as error:
            raise_first({rank: told[0] for rank, told in error.failures.items()})
            raise


def _of(group: Group) -> dict[str, Any]:
    return {"process_group": group.group, "no_dist": group.group is None}


class _Writer(StorageWriter):
    """Writes what DCP plans for one process into one safetensors file."""

    def __init__(self, part: Path, *, first: bool) -> None:
        self._part, self._first, self.blocks = part, first, 0

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Write the blocks of a plan, from where they lie, and flush them to the disk."""
        tensors: dict[str, Tensor] = {}
        places: dict[str, dict[str, list[int]]] = {}
        for item in plan.items:
            name, data = item.index.fqn, item.tensor_data
            assert data is not None, f"{name} is no tensor"
            assert name not in tensors, f"this process holds several blocks of {name}"
            if data.chunk.sizes.numel() or not data.size.numel():
                block = planner.resolve_data(item)
                assert isinstance(block, Tensor), f"{name} is no tensor"
                tensors[name] = block
                places[name] = {"saved_offsets": [*data.chunk.offsets], "shape": [*data.size]}
        if tensors or self._first:
            with explain_disk_errors(str(self._part)):
                save_tensors(tensors, self._part, {PLACES: json.dumps(places)})
                sync_file(self._part)
        self.blocks = len(tensors)
        return _done([])

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None: ...

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None: ...

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        return plans

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None: ...

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return True


class _Reader(StorageReader):
    """Reads what DCP plans for one process from open safetensors files."""

    def __init__(self, opened: Mapping[Path, Any]) -> None:
        self._opened, self._wholes = opened, find_wholes(opened)
        self._parts: dict[tuple[str, tuple[int, ...]], Part] = {
            (name, part.offsets): part
            for name, whole in self._wholes.items()
            for part in whole.parts
        }

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Return which blocks there are."""
        return Metadata(
            {
                name: TensorStorageMetadata(
                    TensorProperties(dtype=whole.dtype),
                    torch.Size(whole.shape),
                    [
                        ChunkStorageMetadata(torch.Size(p.offsets), torch.Size(p.shape))
                        for p in whole.parts
                    ],
                )
                for name, whole in self._wholes.items()
            }
        )

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Copy the blocks of a plan to where they belong."""
        for item in plan.items:
            index: MetadataIndex = item.storage_index
            part = self._parts[index.fqn, tuple(index.offset or ())]
            stored, target = self._opened[part.file], planner.resolve_tensor(item).detach()
            if part.shape:
                ends = zip(item.storage_offsets, item.lengths, strict=True)
                found = stored.get_slice(part.key)[tuple(slice(at, at + n) for at, n in ends)]
            else:
                found = stored.get_tensor(part.key)
            planner.commit_tensor(item, target.copy_(found))
        return _done(None)

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None: ...

    def set_up_storage_reader(
        self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any
    ) -> None: ...

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return True


def _done(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future
