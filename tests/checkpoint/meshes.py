"""One of several processes that lay tensors over random meshes, save them and read them back.

python tests/checkpoint/meshes.py FOLDER RANK WORLD TRIALS SEED
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import torch
from torch import Tensor, distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from coterie.checkpoint import read_into, save_checkpoint
from coterie.checkpoint.group import Group
from coterie.checkpoint.layout import MODEL, OPTIMIZER, stored
from coterie.checkpoint.tensors import model_tensors
from coterie.model import Decoder, DecoderSettings
from coterie.tokenizer.raw_bytes import Bytes
from coterie.train import RunSettings
from coterie.train.randomness import random_state

TOKENIZER = Bytes().build(())


def make_decoder(width: int = 12) -> Decoder:
    """Return a decoder with packed experts, some of whose sizes no number of processes divides."""
    values = {
        "vocab_size": TOKENIZER.vocab_size, "layers": 2, "width": width, "context": 8,
        "attention": {"kind": "grouped", "heads": 2, "query_key_norm": True},
        "head": {"tied": True},
        "feedforward": {"kind": "moe", "experts_per_token": 1, "balance": {"kind": "bias"},
                        "experts": [{"count": 3, "mlp": {"kind": "gated", "width": 7}}]},
    }  # fmt: skip
    return DecoderSettings.model_validate(values).build()


def moments_of(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return moments such as Muon and AdamW have, from the generator."""
    found = {f"muon.{name}.momentum": torch.randn(w.shape) for name, w in weights.items()}
    return found | {f"adamw.{name}.step": torch.tensor(n % 2.0) for n, name in enumerate(weights)}


def shapes(world: int) -> list[tuple[int, ...]]:
    """Return the meshes that so many processes make."""
    pairs = [(n, world // n) for n in range(1, world + 1) if world % n == 0]
    return [(world,), *pairs]


def lay(tensors: dict[str, Tensor], draw: random.Random, world: int) -> dict[str, Tensor]:
    """Return tensors over a mesh, each in a way of its own; of stages, those of this one alone."""
    mesh = init_device_mesh("cpu", draw.choice(shapes(world)))
    if mesh.ndim == 2 and draw.random() < 0.3:  # as a pipeline divides them
        mesh = init_device_mesh("cpu", tuple(mesh.shape), mesh_dim_names=("stage", "within"))
        stage, stages = mesh.get_local_rank("stage"), mesh.size(0)
        tensors = {k: t for n, (k, t) in enumerate(tensors.items()) if n % stages == stage}
        mesh = mesh["within"]
    laid: dict[str, Tensor] = {}
    for number, (name, tensor) in enumerate(sorted(tensors.items())):
        own = random.Random(f"{draw.random()} {number}")
        ways = [Replicate(), *map(Shard, range(tensor.ndim))]
        if tensor.ndim == 0 or own.random() < 0.2:
            laid[name] = tensor.clone()
        else:
            places = [own.choice(ways) for _ in range(mesh.ndim)]
            laid[name] = distribute_tensor(tensor, mesh, places, src_data_rank=None)
    return laid


def shard(decoder: Decoder, draw: random.Random, world: int) -> None:
    """Divide a decoder as FSDP2 does, or HSDP."""
    shape = draw.choice([each for each in shapes(world) if each[-1] > 1])
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=("replica", "shard")[-len(shape) :])
    for block in decoder.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(decoder, mesh=mesh)


def own(tensor: Tensor) -> Tensor:
    return tensor.detach().to_local() if isinstance(tensor, DTensor) else tensor.detach()


def trial(folder: Path, group: Group, seed: int) -> None:
    """Save over one mesh, read over another, save again; what was read is what was meant."""
    draw, world = random.Random(seed), group.world
    torch.manual_seed(seed)
    decoder = make_decoder()
    weights = {name: each.detach().clone() for name, each in model_tensors(decoder).items()}
    parameters = dict(decoder.named_parameters())
    moments = moments_of({name: each for name, each in weights.items() if name in parameters})
    for name in ("one", "two"):
        whole = {MODEL: weights, OPTIMIZER: moments}
        laid = {kind: lay(tensors, draw, world) for kind, tensors in whole.items()}
        if draw.random() < 0.4:
            shard(decoder := make_decoder(), draw, world)
            own_tensors = model_tensors(decoder)
            for each, tensor in own_tensors.items():
                meant = weights[each]
                if isinstance(tensor, DTensor):
                    over = tensor.device_mesh, tensor.placements
                    meant = distribute_tensor(meant, *over, src_data_rank=None)
                tensor.detach().copy_(meant)
            laid[MODEL] = own_tensors
        if name == "two":
            for kind, tensors in laid.items():
                meant = {each: own(tensor).clone() for each, tensor in tensors.items()}
                for tensor in tensors.values():
                    own(tensor).fill_(-1)
                read_into(tensors, stored(folder / "one" / "step-00000001", kind), group)
                for each, tensor in tensors.items():
                    assert torch.equal(own(tensor), meant[each]), f"{seed}: {each}"
        save_checkpoint(
            folder / name, 1, model=laid[MODEL], optimizer_state=laid[OPTIMIZER],
            state={"random": random_state()}, settings=RunSettings(model=decoder.settings),
            tokenizer=TOKENIZER, run="mine", keep=2, group=group,
        )  # fmt: skip
    if group.rank == 0:
        torch.save({MODEL: weights, OPTIMIZER: moments}, folder / "meant.pt")


def main() -> None:
    place, rank, world, trials, seed = sys.argv[1], *map(int, sys.argv[2:])
    torch.set_num_threads(1)
    folder = Path(place)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=world
    )
    group = Group(distributed.group.WORLD)
    for number in range(trials):
        at = folder / f"{number}"
        group.first(lambda at=at: at.mkdir())
        trial(at, group, seed + number)
    distributed.barrier()
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
