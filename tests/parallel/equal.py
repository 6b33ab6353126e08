"""One process against several: the loss and every gradient of one batch, in float64."""

from __future__ import annotations

import pickle
import tempfile
import warnings
from collections import ChainMap
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from coterie.api.given import resolve
from coterie.batch import IGNORE, TokenBatch
from coterie.model import routed_layers
from coterie.parallel.expert import share_statistics, spread_experts
from coterie.parallel.pipeline import Pipeline, Work
from coterie.parallel.tensor import cut_tensors
from coterie.train.metrics import StepMetrics, total_counts
from coterie.train.objective import Models, Terms
from coterie.train.objective.language_model import LanguageModel
from coterie.train.objective.routers import router_terms

VOCAB = 61
BOUND = 1e-12  # relative to the largest value of each gradient


def tiny(preset, **changes):
    """Return a preset's model, as small as its architecture allows, without chance."""
    model = resolve(preset, scale="tiny").settings.model
    additive = tuple(
        each.with_ids({tag: number for number, tag in enumerate(each.tags().values())})
        for each in model.additive
    )
    update = {"vocab_size": VOCAB, "context": 16, "additive": additive, "width": 32, "layers": 3}
    return quiet(model.model_copy(update=update), changes)


def quiet(model, changes):
    """Return a model without dropout and noise, which no two layouts draw alike."""
    words = model.model_dump()
    for name, change in changes.items():
        words[name] = words[name] | change if isinstance(words[name], dict) else change
    words["dropout"] = {"kind": "independent", "rate": 0.0}
    words["embedding"].pop("dropout", None)
    for layer in (words, *words["blocks"].values()):
        if (attention := layer.get("attention")) and "dropout" in attention:
            attention |= {"dropout": 0.0, "heads": 4} | changes.get("attention", {})
        if (feed := layer.get("feedforward")) and feed["kind"] == "moe":
            feed["router"]["noise"] = {"kind": "none"}
    return type(model).model_validate(words)


def batch_of(rows=8, length=14, seed=5, padded=True):
    """Return rows of unequal length."""
    drawn = torch.Generator().manual_seed(seed)
    tokens = torch.randint(VOCAB, (rows, length), generator=drawn)
    targets = torch.randint(VOCAB, (rows, length), generator=drawn)
    if padded:
        for row in range(rows):
            targets[row, length - row % 5 :] = IGNORE if row % 5 else targets[row, length:]
    return TokenBatch(tokens, targets)


def drawn(case):
    """Return the decoder that every process draws, with weights that are all alive."""
    model = tiny(case.preset, **case.changes)
    torch.manual_seed(3)
    decoder = model.build(torch.Generator().manual_seed(3)).double().train()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, dtype=torch.float64)
        for part in routed_layers(decoder).values() if case.one_expert else ():
            part.router.weight.zero_()  # the first of equals
    return decoder, LanguageModel().build(model), StepMetrics()


@dataclass(frozen=True)
class Case:
    """A model and how its processes are laid out."""

    preset: str
    changes: dict = field(default_factory=dict)
    data: int = 1
    expert: int = 1
    tensor: int = 1
    pipeline: int = 1
    schedule: str = "1f1b"
    pieces: int = 1
    one_expert: bool = False
    sequence: bool = False

    @property
    def world(self):
        return self.pipeline * self.data * self.expert * self.tensor

    def __str__(self):
        names = ("data", "expert", "tensor", "pipeline", "pieces")
        told = [f"{name}{getattr(self, name)}" for name in names if getattr(self, name) > 1]
        return "-".join([self.preset, *self.changes, *told, self.schedule])


def alone(case, batch):
    """Return loss, gradients and loads of one process."""
    decoder, objective, metrics = drawn(case)
    pieces = list(batch.split(case.pieces))
    counts = total_counts(objective.counts(piece) for piece in pieces)
    loss = sum(_learned(decoder, objective, metrics, piece, counts) for piece in pieces)
    return loss, {name: p.grad for name, p in decoder.named_parameters()}, metrics.loads


def _learned(decoder, objective, metrics, piece, counts):
    part = metrics.add(objective(Models(decoder), piece), counts)
    part.backward()
    return float(part.detach())


def together(case, batch):
    """Return the same of all processes of the case's layout."""
    decoder, objective, metrics = drawn(case)
    names = ("pipeline", "data", "expert", "tensor")
    sizes = tuple(getattr(case, name) for name in names)
    mesh = init_device_mesh("cpu", sizes, mesh_dim_names=names)
    readers = mesh["data", "expert"]._flatten("batch")
    if case.expert > 1:
        spread_experts(decoder, mesh["expert"])
    if readers.size() > 1:
        share_statistics(decoder, readers.get_group())
    if case.tensor > 1:
        both = mesh["expert", "tensor"] if case.expert > 1 else None
        cut_tensors(decoder, mesh["tensor"], both, sequence=case.sequence)
    pieces = list(batch.split(case.pieces))
    counts = total_counts(objective.counts(piece) for piece in pieces)
    own = [list(piece.split(readers.size()))[readers.get_local_rank()] for piece in pieces]
    if case.pipeline > 1:
        loss = _piped(decoder, objective, metrics, own, counts, mesh["pipeline"], case.schedule)
    else:
        loss = sum(_learned(decoder, objective, metrics, piece, counts) for piece in own)
    found = (
        summed(torch.tensor(loss, dtype=torch.float64), readers).item(),
        {name: _gradient(p, mesh, readers) for name, p in decoder.named_parameters()},
        {layer: summed(load, readers) for layer, load in metrics.loads.items()},
    )
    return found if case.pipeline == 1 else _joined(found, mesh["pipeline"].get_group())


def _piped(decoder, objective, metrics, pieces, counts, mesh, schedule):
    losses = []

    def loss(model, piece):
        losses.append(metrics.add(objective(Models(model), piece), counts))
        return losses[-1]

    def routers(piece, stats):
        if not stats:
            return None
        losses.append(
            metrics.add(Terms(tuple(router_terms(stats, lambda _: "tokens")), stats), counts)
        )
        return losses[-1]

    pipeline = Pipeline(decoder, mesh, schedule)
    pipeline.run(pieces, Work(loss, routers))
    pipeline.add_up_shared()
    return sum(float(each.detach()) for each in losses)


def _joined(found, group):
    """Return what the stages of a pipeline found, together."""
    stages = [None] * group.size()
    dist.all_gather_object(stages, found, group=group)
    losses, gradients, loads = zip(*stages, strict=True)
    for name in {name for stage in gradients for name in stage}:
        held = [stage[name] for stage in gradients if name in stage]
        assert all(torch.equal(each, held[0]) for each in held), name
    return sum(losses), dict(ChainMap(*gradients)), dict(ChainMap(*loads))


def summed(value, mesh):
    value = value.clone()
    dist.all_reduce(value, group=mesh.get_group())
    return value


def _gradient(parameter, mesh, readers):
    """Return a parameter's gradient, whole and over all tokens."""
    gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    if not isinstance(gradient, DTensor):
        return summed(gradient, readers)
    spread = "expert" in gradient.device_mesh.mesh_dim_names
    own = summed(gradient.to_local(), mesh["data"] if spread else readers)
    return DTensor.from_local(
        own, gradient.device_mesh, gradient.placements, shape=gradient.shape,
        stride=gradient.stride(),
    ).full_tensor()  # fmt: skip


def differences(found, expected):
    """Return, by name, how far each gradient is off, relative to its largest value.

    Those that are zero but for rounding, as keys' biases, are held to the others' size.
    """
    largest = max(float(one.abs().max()) for one in expected.values() if one is not None)
    told = {}
    for name, one in expected.items():
        one = torch.zeros_like(found[name]) if one is None else one
        scale = max(float(one.abs().max()), 1e-4 * largest)
        told[name] = float((found[name] - one).abs().max()) / scale
    return told


def compared(rank, world, cases):
    """Return, for each case of this many processes, what differs: loss, worst gradient, loads."""
    told = {}
    for case in cases:
        batch = batch_of()
        loss, expected, loads = alone(case, batch)
        found_loss, found, found_loads = together(case, batch)
        off = differences(found, expected)
        worst = max(off, key=off.get)
        same = all(torch.equal(found_loads[layer], load) for layer, load in loads.items())
        told[str(case)] = (abs(found_loss - loss) / loss, off[worst], worst, same)
    return told


def spawn(world, function, *arguments):
    """Return what `function(rank, world, *arguments)` returns in the first of so many processes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        torch.multiprocessing.spawn(_enter, (world, path, function, arguments), nprocs=world)
        return pickle.loads((path / "result").read_bytes())


def _enter(rank, world, path, function, arguments):
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    dist.init_process_group(
        "gloo", f"file://{path}/store", rank=rank, world_size=world, timeout=timedelta(seconds=60)
    )
    result = function(rank, world, *arguments)
    if rank == 0:
        (path / "result").write_bytes(pickle.dumps(result))
    dist.destroy_process_group()
