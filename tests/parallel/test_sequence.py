"""Tokens divided between matrices: loss and gradients are one process's, in less memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh

from coterie.parallel.settings import Parallel
from coterie.parallel.shard import local
from coterie.parallel.tensor import cut_tensors

from .equal import Case, batch_of, compared, drawn, spawn, tiny
from .test_expert import MTP, check

FEW = [
    Case("s15era", MTP, tensor=2, sequence=True),  # its modules read an odd number of tokens
    Case("mymoe", tensor=2, sequence=True),  # branches side by side, a capacity
    Case("gpt2", tensor=2, sequence=True),
]
PRESETS = ("blues", "quickstart", "sonnet", "yinggem", "yinghub")
MANY = [
    *(Case(preset, tensor=2, sequence=True) for preset in PRESETS),
    Case("gpt2", data=2, tensor=2, pieces=2, sequence=True),
    Case("yinghub", expert=2, tensor=2, sequence=True),
]


def kept(module: nn.Module, batch: Any) -> tuple[int, int]:
    """Return the bytes kept for the backward pass, and the tokens of a row that a norm read."""
    seen: dict[int, int] = {}
    lengths: list[int] = []
    own = {local(each).untyped_storage().data_ptr() for each in module.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        store = tensor.untyped_storage()
        if store.data_ptr() not in own:
            seen[store.data_ptr()] = store.nbytes()
        return tensor

    norm = module.blocks[1].feedforward_norm  # type: ignore[attr-defined, index]
    hook = norm.register_forward_pre_hook(lambda _, args: lengths.append(args[0].shape[1]))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = module(batch.tokens, batch.targets).losses.sum()
        found = sum(seen.values()), lengths[0]
    hook.remove()
    loss.backward()
    return found


def learned_and_kept(rank: int, world: int, lengths: tuple[int, ...]) -> Any:
    mesh = init_device_mesh("cpu", (world,), mesh_dim_names=("tensor",))
    found = []
    for sequence in (False, True):
        decoder, _, _ = drawn(Case("gpt2"))
        cut_tensors(decoder, mesh, sequence=sequence)
        found += [kept(decoder, batch_of(length=length)) for length in lengths]
    return compared(rank, world, FEW), found


def test_two_processes_learn_what_one_does_and_keep_less_for_the_backward_pass():
    learned, (whole, whole_odd, divided, odd) = spawn(2, learned_and_kept, (14, 13))
    check(learned)
    assert (whole[1], divided[1]) == (14, 7)
    stream = 8 * 14 * 32 * 8  # bytes of a batch's
    assert whole[0] - divided[0] >= 3 * 2 * stream / 2  # what both norms of three layers read
    assert odd == whole_odd  # 13 tokens stay whole


@pytest.mark.distributed
@pytest.mark.parametrize("world", [2, 4])
def test_presets_and_pairs_learn_what_one_process_does(world):
    check(spawn(world, compared, [case for case in MANY if case.world == world]))


def test_what_cannot_be_divided_so_is_told_at_once():
    plain = tiny("gpt2")
    dropout = plain.dropout.model_copy(update={"rate": 0.1})
    dropping = plain.model_copy(update={"dropout": dropout})

    def told(model: Any, length: int, world: int, **sizes: Any) -> str:
        asked = Parallel(sequence=True, **sizes)
        return "\n".join(asked._problems(asked.sizes(world), model, {length: 8}, 2))

    found = told(dropping, 16, 2, pipeline=2)
    for words in ("tensor=1", "stage to stage", "model.dropout"):
        assert words in found
    assert "does not divide 15 tokens" in told(plain, 15, 2, tensor=2)
    assert not told(plain, 16, 2, tensor=2)
