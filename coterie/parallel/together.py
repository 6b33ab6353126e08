"""What an optimizer step asks of the other processes: counts, gradients, norms, draws.

Each number that is a sum over the batch is summed over processes before anything is divided by it
or decided on it, so that a step is the same however many computed it.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, distributed
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from coterie.batch import TokenBatch
from coterie.model import Decoder
from coterie.parallel.expert import share_statistics, spread_experts, spread_parameters
from coterie.parallel.mesh import Mesh
from coterie.parallel.pipeline import Pipeline, Work
from coterie.parallel.ranks import Ranks, Some
from coterie.parallel.settings import Parallel
from coterie.parallel.shard import copies, end_backward, local, shard, sharded_modules, whole
from coterie.parallel.tensor import cut_tensors


class Together:
    """One decoder on several processes.

    Attributes:
        ranks: the processes.
        mesh: where each is.
        stage: those that hold the same layers.
        pipeline: the stages of which some are here; None: every process has all layers.
        everyone: all processes, for words between the steps.
        saving: all processes, for what checkpoints send while the steps go on.
        draws: within it, what is drawn for rows is what one process would draw for them.
    """

    def __init__(self, ranks: Ranks, mesh: Mesh, settings: Parallel, decoder: Decoder) -> None:
        """Divide a decoder, whose values are the same on every process, in place."""
        self.ranks, self.mesh, self.settings = ranks, mesh, settings
        self.draws = RowDraws(mesh.reader, mesh.readers)
        self.stage = Some(mesh.stage)
        self.pipeline = self._apply(decoder)
        shared = [] if self.pipeline is None else self.pipeline.parameters_shared()
        self._twice = {id(parameter) for parameter in shared}
        self._decoder = decoder
        self._spread = list(spread_parameters(decoder))
        wait = datetime.timedelta(seconds=settings.timeout)
        self.everyone, self.saving = (
            cast(distributed.ProcessGroup, distributed.new_group(backend="gloo", timeout=wait))
            for _ in range(2)
        )
        self._units = list(sharded_modules(decoder))

    def _apply(self, decoder: Decoder) -> Pipeline | None:
        return apply(decoder, self.mesh, self.settings)

    @property
    def share(self) -> tuple[int, int]:
        """Which share of a batch's rows this process reads, of how many."""
        return self.mesh.reader, self.mesh.readers

    @property
    def joins_anew(self) -> bool:
        """Whether processes that wait can be woken, as over gloo, and any finer cut will do."""
        return self.mesh.whole.device_type == "cpu" and self.pipeline is None

    def counts(self, counts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return counts summed over the batch, in one message."""
        packed = torch.stack([count.double() for count in counts.values()])
        distributed.all_reduce(packed, group=self.mesh.batch)
        return {n: each.to(c.dtype) for (n, c), each in zip(counts.items(), packed, strict=True)}

    def before(self, *, last: bool) -> None:
        """Prepare for a micro-batch; replicas sum their gradients after the last one alone."""
        for unit in self._units:
            if self.mesh.sizes["shard"] * self.mesh.sizes["context"] == 1:
                unit.set_requires_gradient_sync(last, recurse=False)
            else:  # parts are summed at once, for whole gradients would take their memory
                unit.set_requires_all_reduce(last, recurse=False)
            unit.set_is_last_backward(last)

    def backward(self, loss: Tensor) -> None:
        """Add up the gradients of a micro-batch."""
        loss.backward()

    def through_stages(self, pieces: Sequence[TokenBatch], work: Work) -> None:
        """Add up the gradients of all micro-batches, which flow through the stages."""
        pipeline, device = self.pipeline, pieces[0].tokens.device
        assert pipeline is not None
        for unit in self._units:
            unit.set_requires_gradient_sync(False, recurse=False)
            unit.set_reshard_after_backward(False, recurse=False)
            unit.set_is_last_backward(False)
        # Stages draw different things: each from here on, and all go on from where they were.
        seed = int(torch.randint(2**62, ()))
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed + self.mesh.whole.get_local_rank("pipeline"))
            pipeline.run(pieces, work)
        end_backward(self._decoder)
        pipeline.add_up_shared()

    def after(self) -> None:
        """Add up the gradients of experts over the groups that hold the same ones."""
        if self.mesh.experts is None or self.mesh.experts.size(1) == 1:
            return
        group = self.mesh.experts.get_group("expert_replicas")
        for parameter in self._spread:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            distributed.all_reduce(local(parameter.grad), group=group)

    def whole(self, *, written: bool = False) -> contextlib.AbstractContextManager[None]:
        """Return within what weights may be read by their names, or written; all call it."""
        return contextlib.nullcontext()

    def fresh(self) -> None:
        """Drop gathered weights, for the parts have changed."""
        for unit in self._units:
            unit.reshard()

    def copies(self, parameter: Tensor) -> int:
        """Return how many processes hold the same part of a parameter as this one."""
        stages = self.mesh.sizes["pipeline"]
        return copies(parameter) // stages * (2 if id(parameter) in self._twice else 1)

    def total(
        self,
        numbers: Sequence[Tensor],
        squares: Sequence[tuple[Tensor, Tensor]],
        *,
        by_stage: bool = False,
    ) -> tuple[list[Tensor], Tensor]:
        """Return sums over the batch and the sum of squares over all parameters, in one message.

        Args:
            numbers: of this process, of any shape and type; those that divide matrices have the
                same ones, which count once.
            squares: the norm of what this process holds of a parameter, and the parameter.
            by_stage: whether stages have numbers of their own, rather than all the same.
        """
        own = [norm.double() ** 2 / self.copies(of) for norm, of in squares]
        held = torch.stack(own).sum() if own else torch.zeros((), dtype=torch.float64)
        alike = ("tensor",) if by_stage else ("tensor", "pipeline")
        once = all(self.mesh.whole.get_local_rank(axis) == 0 for axis in alike)
        flat = [each.to(held).flatten() * float(once) for each in numbers]
        packed = torch.cat([held[None], *flat])
        distributed.all_reduce(packed)
        parts = packed[1:].split([each.numel() for each in numbers])
        summed = [
            part.view(each.shape).to(each.dtype) for part, each in zip(parts, numbers, strict=True)
        ]
        return summed, packed[0]

    def gathered(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors whole, those that other processes alone hold included."""
        found = {name: whole(each) for name, each in tensors.items()}
        for rank, names in enumerate(self.ranks.gather([*found])):
            missing = [name for name in names if name not in found]
            for absent in self.ranks.gather(missing):
                if absent:  # somebody lacks what this rank has
                    some = [{n: found[n].cpu() for n in names} if rank == self.ranks.rank else None]
                    distributed.broadcast_object_list(some, src=rank)
                    found = {**(some[0] or {}), **found}
                    break
        return found

    def norms(self, norms: Tensor) -> Tensor:
        """Return norms over all processes of norms of what this one holds."""
        squares = norms.double() ** 2
        distributed.all_reduce(squares)
        return squares.sqrt().to(norms.dtype)

    def rows(self, rows: Float[Tensor, "3 B"]) -> Float[Tensor, "3 N"]:
        """Return what is told of each row, of all rows of the batch."""
        sent = rows.T.contiguous()
        every = sent.new_empty(self.mesh.batch.size() * sent.shape[0], sent.shape[1])
        distributed.all_gather(
            list(every.chunk(self.mesh.batch.size())), sent, group=self.mesh.batch
        )
        return every.T


def apply(decoder: Decoder, mesh: Mesh, settings: Parallel) -> Pipeline | None:
    """Divide a decoder as the settings say, before an optimizer knows its parameters.

    The order matters: experts, matrices, stages, recomputation, and gathering around them all.
    """
    share_statistics(decoder, mesh.batch)
    if mesh.experts is not None:
        spread_experts(decoder, mesh.experts["expert"])
    if mesh.sizes["tensor"] > 1:
        both = None if mesh.experts is None else mesh.experts["expert", "tensor"]
        cut_tensors(decoder, mesh.whole["tensor"], both, sequence=settings.sequence)
    pipeline = None
    if mesh.sizes["pipeline"] > 1:
        pipeline = Pipeline(decoder, mesh.whole["pipeline"], settings.schedule)
    shard(decoder, mesh, settings)
    return pipeline


class RowDraws(TorchFunctionMode):
    """Draws for the rows of all processes and keeps this one's, so that none depends on how many.

    Every process has the same generator; each takes from it what one process would for the whole
    micro-batch. What has no rows, a draw of one dimension, is the same for all.
    """

    def __init__(self, reader: int, readers: int) -> None:
        super().__init__()
        self._reader, self._readers = reader, readers

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.dropout:
            return self._dropout(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            return self._attention(*args, **kwargs)
        if func is torch.randn_like:
            return self._own(args[0], lambda drawn: drawn.normal_())
        if func is torch.Tensor.uniform_:
            return args[0].copy_(self._own(args[0], lambda drawn: drawn.uniform_(*args[1:])))
        if func is torch.rand and isinstance(args[0], torch.Size):
            like = torch.empty(args[0], **kwargs)
            return self._own(like, lambda drawn: drawn.uniform_())
        return func(*args, **kwargs)

    def _own(self, like: Tensor, draw: Any) -> Tensor:
        rows = like.shape[0]
        with torch.no_grad():
            drawn = draw(like.detach().new_empty(self._readers * rows, *like.shape[1:]))
        return drawn[self._reader * rows : (self._reader + 1) * rows]

    def _attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        **kwargs: Any,
    ) -> Tensor:
        """Return what torch's own does; where it drops weights, in its steps on a CPU."""
        if not dropout_p:
            return F.scaled_dot_product_attention(
                query, key, value, attn_mask, is_causal=is_causal, **kwargs
            )
        groups = query.shape[1] // key.shape[1]
        key, value = (each.repeat_interleave(groups, 1) for each in (key, value))
        scale = kwargs.get("scale")
        scores = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
        if is_causal:
            attn_mask = torch.ones_like(scores[0, 0], dtype=torch.bool).tril()
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -torch.inf)
        elif attn_mask is not None:
            scores = scores + attn_mask
        return self._dropout(scores.softmax(-1), dropout_p) @ value

    def _dropout(
        self, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        if not (training and p) or not x.numel():
            return x
        kept = self._own(x, lambda drawn: drawn.bernoulli_(1 - p))
        return x * kept.div_(1 - p)
