"""Pipeline parallelism: each process holds some of the blocks, and micro-batches flow through them.

Schedules are torch's: 1F1B (Narayanan et al. 2019, doi:10.1145/3341301.3359646), interleaved 1F1B
(Narayanan et al. 2021, arXiv:2104.04473) and interleaved zero bubble (Qi et al. 2023,
arXiv:2401.10241), where each process has two stretches of blocks. Every process reads the tokens of
the batch; what flows is the residual stream.

A decoder keeps its shape: names and numbers of blocks are what they were, but parameters that
others hold are gone. The first stage embeds, the last one has the norm and the heads. What both
need (a tied embedding; all that embeds, for multi-token prediction) is on both, and their gradients
are added up. The losses of routers enter where their layers are: the stream carries their gradient.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleInterleaved1F1B
from torch.distributed.pipelining.schedules import (
    PipelineScheduleMulti,
    PipelineScheduleSingle,
    ScheduleInterleavedZeroBubble,
)
from torch.distributed.tensor import DTensor

from coterie.batch import TokenBatch
from coterie.model import Decoder, DecoderSettings, Output, RouterStats
from coterie.model.context import EMPTY, ForwardContext, Section
from coterie.model.experts import MixtureOfExperts

ScheduleName = Literal["1f1b", "interleaved", "zero_bubble"]
_STRETCHES: dict[ScheduleName, int] = {"1f1b": 1, "interleaved": 2, "zero_bubble": 2}
"""Stretches of blocks that each process holds."""
_SEVERAL: dict[ScheduleName, type[PipelineScheduleMulti]] = {
    "interleaved": ScheduleInterleaved1F1B,
    "zero_bubble": ScheduleInterleavedZeroBubble,
}


def pipeline_problems(
    model: DecoderSettings, processes: int, schedule: ScheduleName, micro_batches: int
) -> Iterator[str]:
    """Yield what stands against cutting a model into stages for so many processes."""
    if processes == 1:
        return
    stages = processes * _STRETCHES[schedule]
    if model.layers < stages:
        yield (
            f"pipeline={processes} with schedule={schedule} makes {stages} stages, and there are "
            f"{model.layers} layers"
        )
    if micro_batches < processes:
        yield (
            f"pipeline={processes} needs as many micro-batches, not {micro_batches}: set "
            f"train.gradient_accumulation to {processes} or more"
        )
    rounds = max(1, micro_batches // processes)
    if schedule != "1f1b" and micro_batches % rounds:
        yield (
            f"schedule={schedule} cannot send {micro_batches} micro-batches through {processes} "
            f"processes in {rounds} equal rounds; a multiple of {processes} works"
        )


def stretches(layers: int, stages: int) -> list[range]:
    """Return the blocks of each stage: as evenly as can be, the later ones having fewer."""
    share, more = divmod(layers, stages)
    starts = [stage * share + min(stage, more) for stage in range(stages + 1)]
    return [range(a, b) for a, b in itertools.pairwise(starts)]


class Work(NamedTuple):
    """What a step asks of the stages.

    Attributes:
        loss: returns a micro-batch's share of the loss, given what stands for the decoder; called
            where the last stage is.
        routers: returns the share of the routers' terms of other stages; None: they have none.
        within: makes the context of a forward pass.
    """

    loss: Callable[[Callable[..., Output], TokenBatch], Tensor]
    routers: Callable[[TokenBatch, tuple[RouterStats, ...]], Tensor | None]
    within: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext


@dataclass(frozen=True)
class _Shape:
    """What decides the buffers between stages."""

    pieces: int
    rows: int
    length: int


class Pipeline:
    """A decoder of which each process of a mesh of one dimension keeps its stages."""

    def __init__(self, decoder: Decoder, mesh: DeviceMesh, schedule: ScheduleName = "1f1b") -> None:
        """Cut a decoder, whose values are the same on every process, in place."""
        self._decoder, self._group = decoder, mesh.get_group()
        self._name: ScheduleName = schedule
        self._rank, self._size = mesh.get_local_rank(), mesh.size()
        self._routed = sum(
            isinstance(plan.feedforward, MixtureOfExperts) for plan in decoder.settings.plans()
        )
        stages = self._size * _STRETCHES[schedule]
        self._blocks = stretches(decoder.settings.layers, stages)
        self._own = range(self._rank, stages, self._size)
        self._pieces: list[TokenBatch] = []
        self._work: Work | None = None
        self._schedules: dict[_Shape, PipelineScheduleSingle | PipelineScheduleMulti] = {}
        self.shared = self._cut()
        self._whole = decoder.forward
        decoder.forward = self._everywhere  # type: ignore[method-assign]

    @property
    def is_last(self) -> bool:
        """Whether losses are computed here."""
        return self._rank == self._size - 1

    def run(self, pieces: Sequence[TokenBatch], work: Work) -> None:
        """Add up the gradients of all micro-batches, which have equally many rows of one length."""
        self._pieces, self._work = list(pieces), work
        tokens = self._pieces[0].tokens
        shape = _Shape(len(self._pieces), *tokens.shape)
        if shape not in self._schedules:
            self._schedules[shape] = self._built(shape, tokens.device)
        numbers = torch.arange(len(self._pieces), device=tokens.device)
        given = (numbers,) if self._rank == 0 else ()
        target = numbers if self.is_last else None
        self._schedules[shape].step(*given, target=target, return_outputs=False, piece=numbers)
        self._pieces, self._work = [], None

    def _cut(self) -> list[str]:
        """Drop what others hold; return what the first and the last stage both have, by name."""
        decoder = self._decoder
        embeds = [decoder.embedding, decoder.position, decoder.additive]
        embeds += [] if decoder.embedding_norm is None else [decoder.embedding_norm]
        ends = [decoder.norm, decoder.head, decoder.mtp, decoder.value, decoder.pooled]
        tied = [decoder.embedding] if decoder.head.weight is None else []
        both = embeds if len(decoder.mtp) else tied
        shared = {id(p) for module in both for p in module.parameters()}
        held = {layer for stage in self._own for layer in self._blocks[stage]}
        names = [n for n, p in decoder.named_parameters() if id(p) in shared]
        for layer, block in enumerate(decoder.blocks):
            if layer not in held:
                _drop(block)
        if self._rank != 0:
            for module in embeds:
                _drop(module, shared if self.is_last else set())
        if not self.is_last:
            for module in ends:
                if module is not None:
                    _drop(module)
        return names if self._rank in (0, self._size - 1) else []

    def _built(
        self, shape: _Shape, device: torch.device
    ) -> PipelineScheduleSingle | PipelineScheduleMulti:
        kind = next(self._decoder.parameters()).dtype
        width = self._decoder.settings.width
        stream = torch.zeros(shape.rows, shape.length, width, dtype=kind, device=device)
        number, loss = torch.zeros(1, dtype=torch.int64, device=device), stream.new_zeros(())
        last = len(self._blocks) - 1
        stages: list[Any] = [
            PipelineStage(
                _Stage(self, stage, ends=stage == last), stage, last + 1, device,
                input_args=stream.clone().requires_grad_() if stage else number,
                output_args=(loss if stage == last else stream).clone().requires_grad_(),
                group=self._group,
            )
            for stage in self._own
        ]  # fmt: skip
        given: dict[str, Any] = {"loss_fn": lambda loss, piece: loss, "scale_grads": False}
        if self._name == "1f1b":
            return Schedule1F1B(stages[0], shape.pieces, **given)
        return _SEVERAL[self._name](stages, shape.pieces, **given)

    def stage(self, stage: int, stream: Tensor | None, piece: int, *, ends: bool) -> Tensor:
        """Return the stream after a stage, or the loss where it is the last."""
        batch, work = self._pieces[piece], self._work
        assert work is not None
        routed = self._routed + self._routed_further(batch.tokens.shape[1])
        section = Section(self._blocks[stage], stream, ends)

        def part(tokens: Tensor, targets: Tensor | None, context: ForwardContext) -> Output:
            output = self._decoder(tokens, targets, context.but(section=section))
            # Whoever averages over layers knows those that are here alone.
            share = len(output.router_stats) / max(routed, 1)
            return replace(output, router_stats=tuple(
                replace(each, auxiliary=each.auxiliary * share, z=each.z * share,
                        entropy_term=each.entropy_term * share)
                for each in output.router_stats
            ))  # fmt: skip

        with work.within():
            if ends:
                return work.loss(part, batch)
            output = part(batch.tokens, batch.targets, ForwardContext.of(batch))
            terms = work.routers(batch, output.router_stats)
        assert output.hidden_states is not None
        if terms is None or not terms.requires_grad:
            return output.hidden_states
        return _Carried.apply(output.hidden_states, terms)  # type: ignore[no-any-return]

    def _routed_further(self, length: int) -> int:
        settings = self._decoder.settings
        routed = isinstance(settings.mtp_plan().feedforward, MixtureOfExperts)
        return min(settings.mtp.depth, length - 1) if settings.mtp and routed else 0

    def parameters_shared(self) -> list[nn.Parameter]:
        """Return what both the first and the last stage have, on one of them."""
        held = dict(self._decoder.named_parameters())
        return [held[name] for name in self.shared]

    def add_up_shared(self) -> None:
        """Exchange the gradients of what the first and the last stage both have."""
        if not self.shared:
            return
        other = dist.get_global_rank(self._group, self._size - 1 - self._rank)
        own = []
        for parameter in self.parameters_shared():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            own.append(_local(parameter.grad))
        theirs = [torch.empty_like(each) for each in own]
        pairs = [
            dist.P2POp(way, each, other, self._group)
            for way, tensors in ((dist.isend, own), (dist.irecv, theirs))
            for each in tensors
        ]
        for request in dist.batch_isend_irecv(pairs):
            request.wait()
        for mine, added in zip(own, theirs, strict=True):
            mine += added

    def _everywhere(
        self,
        tokens: Tensor,
        targets: Tensor | None = None,
        context: ForwardContext = EMPTY,
        **asked: Any,
    ) -> Output:
        """Compute what a whole decoder returns, on every process, without gradients.

        Evaluation and generation call it, on all processes at once.
        """
        if context.section is not None:
            return self._whole(tokens, targets, context, **asked)
        stream: Tensor | None = None
        found: list[RouterStats] = []
        for stage, blocks in enumerate(self._blocks):
            owner, ends = stage % self._size, stage == len(self._blocks) - 1
            output: Output | None = None
            if owner == self._rank:
                part = context.but(section=Section(blocks, stream, ends))
                with torch.no_grad():
                    output = self._whole(tokens, targets, part, **asked)
            told = [output]
            source = dist.get_global_rank(self._group, owner)
            dist.broadcast_object_list(told, source, group=self._group, device=tokens.device)
            assert told[0] is not None
            found += told[0].router_stats
            stream = told[0].hidden_states
            if ends:
                return replace(told[0], router_stats=tuple(found))
        raise AssertionError("there is a last stage")


class _Stage(nn.Module):
    """One stage as torch's schedules call it; its parameters are those of its own blocks."""

    def __init__(self, pipeline: Pipeline, stage: int, *, ends: bool) -> None:
        super().__init__()
        decoder = pipeline._decoder
        self._run, self._stage, self._ends = pipeline.stage, stage, ends
        # What a schedule moves gradients for, and nothing of the process's other stretch.
        self.held = nn.ModuleList(decoder.blocks[layer] for layer in pipeline._blocks[stage])
        if stage == 0:
            self.held.extend([decoder.embedding, decoder.position, decoder.additive])
            if decoder.embedding_norm is not None:
                self.held.append(decoder.embedding_norm)
        if ends:
            others = (decoder.embedding, decoder.position, decoder.additive, decoder.norm,
                      decoder.head, decoder.mtp)  # fmt: skip
            self.held.extend(others)
            heads = (decoder.embedding_norm, decoder.value, decoder.pooled)
            self.held.extend(each for each in heads if each is not None)

    def forward(self, received: Tensor, piece: Tensor) -> Tensor:
        stream = received if self._stage else None
        return self._run(self._stage, stream, int(piece), ends=self._ends)


class _Carried(torch.autograd.Function):
    """A stream whose backward pass gives a loss beside it the gradient of a summand."""

    @staticmethod
    def forward(ctx: Any, stream: Tensor, loss: Tensor) -> Tensor:
        ctx.kind = loss.dtype
        return stream.clone()  # what is split into two passes is no view

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        return gradients[0], gradients[0].new_ones((), dtype=ctx.kind)


def _drop(module: nn.Module, kept: set[int] = frozenset()) -> None:  # type: ignore[assignment]
    for each in module.modules():
        for name, parameter in each._parameters.items():
            if id(parameter) not in kept:
                each._parameters[name] = None


def _local(tensor: Tensor) -> Tensor:
    return tensor._local_tensor if isinstance(tensor, DTensor) else tensor
