"""Tensor parallelism: the processes of a group divide heads, hidden channels and the vocabulary.

Shoeybi et al. 2019 (Megatron-LM), arXiv:1909.08053, section 3. Matrices into a region are cut by
their outputs, those out of it by their inputs, so that a region adds up once at its end:

- attention by heads: queries, keys and values by rows, the output by columns. A key head that
  several processes have query heads of stays whole on each (Shazeer 2019, arXiv:1911.02150, has one
  for all); so does what compresses tokens in latent attention, common to all heads;
- an MLP by its hidden channels: what leads into the last hidden layer by rows, what leads out of it
  by columns; matrices before it (of deep MLPs) stay whole. The experts of a pack likewise, each;
- head and full embedding by the vocabulary. Losses are computed without ever joining logits: of
  each position three numbers travel.

The residual stream, norms, routers and gates are whole on every process and computed alike there,
unless the processes divide the tokens of the stream as well (`sequence`).
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import (
    PrepareModuleInputOutput,
    parallelize_module,
)
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from coterie.batch import IGNORE
from coterie.model import Decoder, DecoderSettings
from coterie.model.attention.grouped import GroupedAttentionPart
from coterie.model.attention.latent_vectors import LatentVectorAttentionPart
from coterie.model.attention.mla import LatentAttention, LatentAttentionPart
from coterie.model.blocks import BlockPlan
from coterie.model.embedding import FullEmbeddingPart
from coterie.model.experts import MixtureOfExperts, MixtureOfExpertsPart
from coterie.model.experts.dispatch import Dispatched, Dispatcher
from coterie.model.loss import LOGITS_AT_ONCE
from coterie.model.mlp import (
    DeepMLPPart,
    GatedMLPPart,
    HybridMLPPart,
    MLPPart,
    NullMLP,
    NullMLPPart,
    PlainMLPPart,
)
from coterie.parallel.cut import Piece, computes_with, cut, entering, leaving, piece_of
from coterie.parallel.sequence import Stream

_INTO_HIDDEN: dict[type[MLPPart], tuple[str, ...]] = {
    GatedMLPPart: ("gate", "up"),
    PlainMLPPart: ("up",),
    DeepMLPPart: ("middle",),
    HybridMLPPart: ("deep_middle", "wide_up"),
}
"""The matrices that are cut by rows; those out of the hidden layer, `outputs`, by columns."""


def tensor_problems(model: DecoderSettings, processes: int) -> Iterator[str]:
    """Yield what stands against dividing a model's matrices among so many processes."""
    if processes == 1:
        return
    told: dict[str, None] = {}
    for plan in (*model.plans(), *([model.mtp_plan()] if model.mtp else [])):
        told |= dict.fromkeys(_problems(plan, model.width, processes))
    yield from told


def _problems(plan: BlockPlan, width: int, processes: int) -> Iterator[str]:
    attention, feed = plan.attention, plan.feedforward
    if attention.heads % processes:
        yield (
            f"tensor={processes} does not divide {attention.heads} attention heads; "
            f"what does: {_divisors(attention.heads)}"
        )
    keys = attention.heads if isinstance(attention, LatentAttention) else attention.key_heads
    if keys % processes and processes % keys:
        yield (
            f"tensor={processes} neither divides {keys} attention kv_heads nor is a multiple of "
            f"them; what divides them: {_divisors(keys)}"
        )
    elif keys % processes and getattr(attention, "query_key_norm_over", "head") == "all":
        yield (
            f"tensor={processes} shares {keys} attention kv_heads among more processes, which "
            f"query_key_norm_over=all cannot; what divides them: {_divisors(keys)}"
        )
    mlps = [feed.mlp] if not isinstance(feed, MixtureOfExperts) else [
        *(pack.mlp for pack in feed.experts), *([feed.shared()] if feed.shared_experts else []),
    ]  # fmt: skip
    into = {name for names in _INTO_HIDDEN.values() for name in names}
    for mlp in mlps:
        if isinstance(mlp, NullMLP):
            continue
        for hidden in sorted({rows for name, _, rows in mlp.matrices(width) if name in into}):
            if hidden % processes:
                yield (
                    f"tensor={processes} does not divide the {hidden} hidden channels of a "
                    f"{mlp.label} MLP; what does: {_divisors(hidden)}"
                )
    if isinstance(feed, MixtureOfExperts) and feed.kernel.kind == "measured":
        yield (
            f"tensor={processes}: kernel “measured” tries some kernels more often than other "
            "processes do, which would wait for each other; choose auto, loop, grouped or padded"
        )


def _divisors(number: int) -> str:
    return ", ".join(str(n) for n in range(1, min(number, 64) + 1) if number % n == 0)


def cut_tensors(
    decoder: Decoder, mesh: DeviceMesh, both: DeviceMesh | None = None, *, sequence: bool = False
) -> None:
    """Divide a decoder's matrices among the processes of a mesh of one dimension.

    Args:
        mesh: of the processes that compute the same tokens.
        both: experts × tensor, where experts were spread before.
        sequence: whether they divide the tokens of the residual stream as well.
    """
    stream = Stream(decoder, mesh) if sequence else None
    plan = _Plan(mesh, mesh if both is None else both, stream)
    packs = {id(pack) for part in decoder.modules() if isinstance(part, MixtureOfExpertsPart)
             for pack in part.experts}  # fmt: skip
    for module in decoder.modules():
        if isinstance(module, GroupedAttentionPart | LatentVectorAttentionPart):
            plan.heads(module)
        elif isinstance(module, LatentAttentionPart):
            plan.latents(module)
        elif isinstance(module, MixtureOfExpertsPart):
            plan.experts(module)
        elif isinstance(module, MLPPart) and id(module) not in packs:
            computes_with(module, plan.hidden(module, mesh))
            plan.region(module)
    plan.vocabulary(decoder)


class _Plan:
    """How each kind of module is divided."""

    def __init__(self, mesh: DeviceMesh, of_experts: DeviceMesh, stream: Stream | None) -> None:
        self._mesh, self._of_experts, self._stream = mesh, of_experts, stream
        self._rank, self._size = mesh.get_local_rank(), mesh.size()

    def heads(self, part: GroupedAttentionPart | LatentVectorAttentionPart) -> None:
        """Divide heads that project tokens themselves."""
        keys = part.key.shape[0] // part.channels
        shared = ("key", "key_bias", "value", "value_bias", "latents")
        pieces = self._cut(part, {"query": 0, "query_bias": 0, "output": 1})
        if keys % self._size:  # several processes have query heads of one key head
            first = self._rank * keys // self._size

            def one_head(parameter: Tensor) -> Tensor:
                rows = parameter.shape[0] // keys
                return entering(parameter, self._mesh)[first * rows : (first + 1) * rows]

            pieces |= dict.fromkeys(shared, one_head)
        else:
            pieces |= self._cut(part, dict.fromkeys(shared, 0))
        computes_with(part, pieces | {"output_bias": self._once})
        self.region(part)
        if not isinstance(part, GroupedAttentionPart):
            return
        for norm in (part.query_norm, part.key_norm):
            if norm is not None and part.norm_over_all:
                # All heads of a token are one vector to it: joined before, divided after.
                style = PrepareModuleInputOutput(
                    input_layouts=(Shard(-1),), desired_input_layouts=(Replicate(),),
                    use_local_input=True, output_layouts=(Replicate(),),
                    desired_output_layouts=(Shard(-1),), use_local_output=True,
                )  # fmt: skip
                parallelize_module(norm, self._mesh, style)
            elif norm is not None:
                self._common(norm)

    def latents(self, part: LatentAttentionPart) -> None:
        """Divide the heads of latent attention; what they have in common is whole on each."""
        sizes = part.settings
        own = sizes.heads // self._size
        part.settings = sizes.model_copy(update={"heads": own})
        pieces = self._cut(part, {"query": 0, "query_up": 0, "kv_up": 0, "output": 1})

        def with_own_keys(parameter: Tensor) -> Tensor:
            whole = entering(parameter, self._mesh)
            if sizes.rotary_keys == 1:
                return whole
            first = sizes.kv_rank + self._rank * own * sizes.rope_dim
            keys = whole[first : first + own * sizes.rope_dim]
            return torch.cat((whole[: sizes.kv_rank], keys))

        common = dict.fromkeys(("query_down", "query_down_bias"), self._inside)
        keys = dict.fromkeys(("kv_down", "kv_down_bias"), with_own_keys)
        computes_with(part, pieces | common | keys | {"output_bias": self._once})
        for norm in (part.query_norm, part.kv_norm):
            if norm is not None:
                self._common(norm)
        self.region(part)

    def hidden(self, mlp: MLPPart, mesh: DeviceMesh) -> dict[str, Piece]:
        """Divide the hidden channels of an MLP, or of each of a pack; return its pieces."""
        packed = 0 if mlp.experts is None else 1
        into = _INTO_HIDDEN.get(type(mlp), ())
        cuts = {name: packed for each in into for name in (each, f"{each}_bias")}
        cuts |= dict.fromkeys(mlp.outputs, packed + 1)
        pieces = dict.fromkeys(mlp.names, self._inside) | self._cut(mlp, cuts, mesh)
        return pieces | {f"{name}_bias": self._once for name in mlp.outputs}

    def experts(self, part: MixtureOfExpertsPart) -> None:
        """Divide each expert; tokens are dispatched on every process of the group alike."""
        part.dispatcher = _Dispatcher(part.dispatcher, self._mesh)
        for pack in part.experts:
            assert isinstance(pack, MLPPart)
            if isinstance(pack, NullMLPPart):
                pack.copies = pack.copies and self._rank == 0  # what all return is added up
            computes_with(pack, self.hidden(pack, self._of_experts), during=part)

    def vocabulary(self, decoder: Decoder) -> None:
        """Divide the vocabulary: rows of the head, of a full embedding, and logits in any case."""
        head, embedding = decoder.head, decoder.embedding
        self._cut(head, {"weight": 0, "bias": 0})
        pieces = _Vocabulary(self._mesh, decoder.settings.known_vocab_size())
        head.linear, head.cross_entropy = pieces.linear, pieces.cross_entropy
        if isinstance(embedding, FullEmbeddingPart):
            computes_with(embedding, self._cut(embedding, {"weight": 0}))
            pieces.look_up_in(embedding)

    def region(self, module: nn.Module) -> None:
        """Let a module read what is whole and return a part of a sum."""
        inwards: Callable[[Tensor], Tensor] = partial(entering, mesh=self._mesh)
        outwards: Callable[[Tensor], Tensor] = partial(leaving, mesh=self._mesh)
        if self._stream is not None:
            inwards, outwards = self._stream.ends_of(module)

        def before(_: nn.Module, args: Any) -> Any:
            return inwards(args[0]), *args[1:]

        def after(_: nn.Module, args: Any, output: Tensor) -> Tensor:
            return outwards(output)

        module.register_forward_pre_hook(before)
        module.register_forward_hook(after)

    def _cut(
        self, module: nn.Module, dims: dict[str, int], mesh: DeviceMesh | None = None
    ) -> dict[str, Piece]:
        """Cut those of the named parameters that there are; return their pieces."""
        there = [name for name in dims if module._parameters.get(name) is not None]
        for name in there:
            cut(module, name, self._mesh if mesh is None else mesh, dims[name])
        return dict.fromkeys(there, piece_of)

    def _common(self, module: nn.Module) -> None:
        """Let a module within a region compute with its own parameters, whole on each process."""
        computes_with(module, dict.fromkeys(module._parameters, self._inside))

    def _inside(self, parameter: Tensor) -> Tensor:
        """Return a parameter that is whole within a region, where gradients are in parts."""
        own = piece_of(parameter) if isinstance(parameter, DTensor) else parameter
        return entering(own, self._mesh)

    def _once(self, bias: Tensor) -> Tensor:
        """Return a bias that is added at a region's end by the first process alone."""
        return self._inside(bias) * float(self._rank == 0)


class _Dispatcher:
    """Marks the ends of the region between dispatch and combine."""

    local = False

    def __init__(self, inner: Dispatcher, mesh: DeviceMesh) -> None:
        self._inner, self._mesh = inner, mesh

    def dispatch(
        self, x: Float[Tensor, "N D"], indices: Int[Tensor, "N k"], *, partial: bool
    ) -> Dispatched:
        """Return the rows of the experts that are here."""
        return self._inner.dispatch(entering(x, self._mesh), indices, partial=partial)

    def combine(
        self, outputs: Float[Tensor, "rows D"], gates: Float[Tensor, "N k"], route: Any
    ) -> Float[Tensor, "N D"]:
        """Return each token's weighted sum, added up over the pieces of its experts."""
        mixed = self._inner.combine(outputs, entering(gates, self._mesh), route)
        return leaving(mixed, self._mesh)


class _Vocabulary:
    """The rows of a matrix over the vocabulary that this process computes with."""

    def __init__(self, mesh: DeviceMesh, size: int) -> None:
        self._mesh, self._size = mesh, size
        share = -(-size // mesh.size())
        self._start = min(mesh.get_local_rank() * share, size)
        self._stop = min(self._start + share, size)

    def _own(self, weight: Tensor) -> Tensor:
        if isinstance(weight, DTensor):
            return weight.to_local()
        return entering(weight, self._mesh)[self._start : self._stop]

    def _operands(
        self, hidden: Tensor, weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        own = None if bias is None else self._own(bias)
        return entering(hidden, self._mesh), self._own(weight), own

    def linear(
        self, hidden: Float[Tensor, "*N R"], weight: Tensor, bias: Tensor | None
    ) -> Float[Tensor, "*N V"]:
        """Return the logits of the whole vocabulary on every process."""
        logits = F.linear(*self._operands(hidden, weight, bias))
        shape = torch.Size((*logits.shape[:-1], self._size))
        pieces = DTensor.from_local(
            logits, self._mesh, [Shard(logits.ndim - 1)], run_check=False,
            shape=shape, stride=logits.new_empty(shape, device="meta").stride(),
        )  # fmt: skip
        return pieces.redistribute(placements=[Replicate()]).to_local()

    def cross_entropy(
        self,
        hidden: Float[Tensor, "N R"],
        weight: Tensor,
        bias: Tensor | None,
        targets: Int[Tensor, " N"],
    ) -> Float[Tensor, " N"]:
        """Return −log softmax(hidden·weightᵀ + bias)[target], 0 at `IGNORE`, logits in pieces."""
        hidden, own, shift = self._operands(hidden, weight, bias)
        rows = max(LOGITS_AT_ONCE // max(own.shape[0], 1), 1)
        if hidden.shape[0] <= rows:
            return self._losses(hidden, own, shift, targets)
        slices = zip(hidden.split(rows), targets.split(rows), strict=True)
        return torch.cat([
            checkpoint(self._losses, some, own, shift, theirs, use_reentrant=False)
            for some, theirs in slices
        ])  # fmt: skip

    def _losses(
        self, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor
    ) -> Tensor:
        logits = F.linear(hidden, weight, bias)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        top = logits.detach().amax(-1)
        dist.all_reduce(top, dist.ReduceOp.MAX, group=self._mesh.get_group())
        logits = logits - top[:, None]
        at = (targets - self._start).clamp(0, logits.shape[1] - 1)
        mine = (targets >= self._start) & (targets < self._stop)
        picked = logits.gather(1, at[:, None])[:, 0].where(mine, 0.0)
        total, picked = leaving(torch.stack((logits.exp().sum(-1), picked)), self._mesh)
        return (total.log() - picked).where(targets != IGNORE, 0.0)

    def look_up_in(self, embedding: FullEmbeddingPart) -> None:
        """Let an embedding look up the tokens that are here; the others come from elsewhere."""
        elsewhere: list[Tensor] = []

        def before(_: nn.Module, args: Any) -> Any:
            tokens = args[0]
            elsewhere.append((tokens < self._start) | (tokens >= self._stop))
            own = (tokens - self._start).clamp(0, max(self._stop - self._start - 1, 0))
            return own, *args[1:]

        def after(_: nn.Module, args: Any, vectors: Tensor) -> Tensor:
            return leaving(vectors.masked_fill(elsewhere.pop()[..., None], 0.0), self._mesh)

        embedding.register_forward_pre_hook(before)
        embedding.register_forward_hook(after)
