"""Looking into a forward pass, and reaching into its routing: hooks that come and go.

Nothing in the model knows of them. While nobody looks there is no hook, so that a pass computes
what it always did, to the bit and at the same cost. Whoever looks gets, for the tokens of a call,
what each layer's router decided, what each branch added to the residual stream, what attention
looked at, and what the stream would predict if it ended there (the logit lens: nostalgebraist 2020,
“interpreting GPT”). Hooks are seen by torch alone: passes of compiled code know none of them.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from coterie.foundation.errors import UserError
from coterie.model.blocks import Block
from coterie.model.decoder import Decoder
from coterie.model.experts import MixtureOfExpertsPart
from coterie.model.experts.router import Routing
from coterie.model.routed import routed_layers


@dataclass(frozen=True)
class LayerRouting:
    """What one layer's router decided for N tokens.

    Attributes:
        indices: the selected experts, best first, [N, k]; E where there is none.
        gates: what their outputs are multiplied with, [N, k]; 0 where there is none.
        scores: of every expert, before any selection bias, [N, E].
        shares: the same as shares of one, [N, E].
        margin: the least ranked score (selection bias included) among the selected, less the
            greatest among the others, [N]: how far the selection was from another one. Negative
            where groups or a hand from outside overruled the ranking.
    """

    indices: Tensor
    gates: Tensor
    scores: Tensor
    shares: Tensor
    margin: Tensor


@dataclass(frozen=True)
class LayerSeen:
    """What one layer did to T tokens of one text.

    Attributes:
        layer: its index.
        residual: Euclidean norm of the stream after the block, [T].
        attention: norm of what the attention branch returned, before any gate of the block layout.
        feedforward: the same of the feed-forward branch.
        routing: the router's decisions; None in a dense layer.
        attended: for each token its attention weights over the keys, averaged over heads; the last
            key is the latest token of its call, so that tokens of several calls differ in length.
            None where the attention cannot tell.
        lens: logits of the next token by the stream as it is after this block, [T, V]; None where
            they were not asked for.
    """

    layer: int
    residual: Float[Tensor, " T"]
    attention: Float[Tensor, " T"]
    feedforward: Float[Tensor, " T"]
    routing: LayerRouting | None = None
    attended: tuple[Tensor, ...] | None = None
    lens: Float[Tensor, "T V"] | None = None


def logit_lens(decoder: Decoder, hidden: Float[Tensor, "... D"]) -> Float[Tensor, "... V"]:
    """Return the logits of a residual stream if no further block followed.

    Counted n-grams have no part in it: they are mixed in behind the network.
    """
    final, weight = decoder.head.operands(decoder.norm(hidden), decoder.embedding)
    return decoder.head.linear(final, weight, decoder.head.bias)


@contextmanager
def routing_watched(decoder: Decoder, look: Callable[[int, LayerRouting], None]) -> Iterator[None]:
    """Hand what each router decides to `look`, layer by layer, for as long as the block lasts."""
    with ExitStack() as hooks:
        for layer, part in routed_layers(decoder).items():
            hooks.enter_context(part.router.register_forward_hook(_router_hook(layer, part, look)))
        yield


def _router_hook(
    layer: int, part: MixtureOfExpertsPart, look: Callable[[int, LayerRouting], None]
) -> Callable[..., None]:
    def seen(module: nn.Module, args: Any, routing: Routing) -> None:
        scores, indices = routing.scores.detach(), routing.indices
        bias = part.balance.selection_bias
        ranked = scores if bias is None else scores + bias
        padded = F.pad(ranked, (0, 1), value=torch.inf)  # index E, none, is the last
        least = padded.gather(-1, indices).amin(-1)
        margin = least - padded.scatter(-1, indices, -torch.inf)[:, :-1].amax(-1)
        shares = part.router.scorer.probabilities(scores)
        look(layer, LayerRouting(indices, routing.gates.detach(), scores, shares, margin))

    return seen


class Watcher:
    """Looks into passes; a context manager that holds the hooks.

    Attention and the lens are of one text; without them rows may be several, one after the other.

    Args:
        attention: whether to take down what attention looks at, which costs its weights anew.
        lens: whether to take down what the stream would predict after each block.
    """

    def __init__(self, decoder: Decoder, *, attention: bool = True, lens: bool = True) -> None:
        self._decoder, self._attention, self._lens = decoder, attention, lens
        self._hooks = ExitStack()
        self._found: dict[tuple[int, str], list[Any]] = defaultdict(list)

    def __enter__(self) -> "Watcher":
        with ExitStack() as hooks:
            hooks.enter_context(
                routing_watched(
                    self._decoder, lambda layer, seen: self._keep(layer, "routing", seen)
                )
            )
            for layer, block in enumerate(cast("Sequence[Block]", self._decoder.blocks)):
                self._look_at(hooks, layer, block)
            self._hooks = hooks.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._hooks.close()

    def _look_at(self, hooks: ExitStack, layer: int, block: Block) -> None:
        def norm_of(name: str) -> Callable[..., None]:
            def seen(module: nn.Module, args: Any, output: Any) -> None:
                made = output[0] if isinstance(output, tuple) else output
                self._keep(layer, name, made.float().norm(dim=-1).flatten())
                if name == "residual" and self._lens:
                    self._keep(layer, "lens", logit_lens(self._decoder, made.flatten(0, 1)))

            return seen

        def asks(module: nn.Module, args: Any) -> Any:
            def look(weights: Tensor) -> None:  # [B, T, S]
                assert weights.shape[0] == 1, "attention is watched of one text"
                count = weights.shape[1]
                for t, row in enumerate(weights[0]):  # each up to its own token, later ones are 0
                    self._keep(layer, "attended", row[: row.shape[0] - (count - 1 - t)])

            return args[0], args[1].but(attention_watch=look)

        for name, module in (
            ("attention", block.attention), ("feedforward", block.feedforward), ("residual", block),
        ):  # fmt: skip
            hooks.enter_context(module.register_forward_hook(norm_of(name)))
        if self._attention:
            hooks.enter_context(block.attention.register_forward_pre_hook(asks))

    def _keep(self, layer: int, name: str, seen: Any) -> None:
        self._found[layer, name].append(seen)

    def take(self, count: int) -> tuple[LayerSeen, ...]:
        """Return what was seen of the latest `count` tokens since the last call, and forget all.

        Where a text began a new stretch, more was read than is new.
        """
        found, self._found = self._found, defaultdict(list)

        def joined(parts: Sequence[Tensor]) -> Tensor:
            return (parts[0] if len(parts) == 1 else torch.cat(tuple(parts)))[-count:]

        def latest(layer: int, name: str) -> Any:
            parts = found.get((layer, name))
            return None if parts is None else joined(parts)

        def routing(layer: int) -> LayerRouting | None:
            calls = found.get((layer, "routing"))
            if calls is None:
                return None
            fields = ("indices", "gates", "scores", "shares", "margin")
            return LayerRouting(
                *(joined([getattr(call, name) for call in calls]) for name in fields)
            )

        def attended(layer: int) -> tuple[Tensor, ...] | None:
            rows = found.get((layer, "attended"))
            return None if rows is None else tuple(rows[-count:])

        return tuple(
            LayerSeen(
                layer, latest(layer, "residual"), latest(layer, "attention"),
                latest(layer, "feedforward"), routing(layer), attended(layer),
                latest(layer, "lens"),
            )
            for layer in range(len(self._decoder.blocks))
        )  # fmt: skip


@dataclass(frozen=True)
class Steering:
    """Experts that are kept from every token, and such as every token is sent to.

    The router ranks the others as ever, and gates are made of the scores of what is selected, so
    that where they are renormalised the remaining experts take over the share of a masked one.

    Attributes:
        masked: experts of each layer that may not be selected.
        forced: experts of each layer that are selected whatever the token is.
    """

    masked: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    forced: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    def check(self, decoder: Decoder) -> None:
        """Make sure that the decoder can be steered so.

        Raises:
            UserError: there is no such layer or expert, more are forced than a token goes to, or
                one is both masked and forced.
        """
        layers = routed_layers(decoder)
        for word, asked in (("masked", self.masked), ("forced", self.forced)):
            for layer, experts in asked.items():
                if layer not in layers:
                    raise UserError(
                        f"Layer {layer} has no experts; layers with experts: "
                        f"{', '.join(map(str, layers)) or 'none'}.",
                    )
                count = layers[layer].num_experts
                if wrong := [expert for expert in experts if not 0 <= expert < count]:
                    raise UserError(
                        f"Expert {layer}:{wrong[0]} cannot be {word}: layer {layer} has the "
                        f"experts 0 to {count - 1}.",
                    )
        for layer, experts in self.forced.items():
            most = layers[layer].router.selector.experts_per_token
            if len(set(experts)) > most:
                raise UserError(f"Layer {layer} sends a token to {most} experts, so no more than "
                                f"{most} can be forced.")  # fmt: skip
            if both := set(experts) & set(self.masked.get(layer, ())):
                raise UserError(f"Expert {layer}:{min(both)} is both masked and forced.")

    def __bool__(self) -> bool:
        return any(self.masked.values()) or any(self.forced.values())


@contextmanager
def steered(decoder: Decoder, steering: Steering) -> Iterator[None]:
    """Mask and force experts in every pass, for as long as the block lasts.

    Raises:
        UserError: see `Steering.check`.
    """
    steering.check(decoder)
    with ExitStack() as hooks:
        for layer, part in routed_layers(decoder).items():
            masked = steering.masked.get(layer, ())
            forced = steering.forced.get(layer, ())
            if masked or forced:
                hook = _steering_hook(part, masked, forced)
                hooks.enter_context(part.router.register_forward_pre_hook(hook))
        yield


def _steering_hook(
    part: MixtureOfExpertsPart, masked: Sequence[int], forced: Sequence[int]
) -> Callable[..., Any]:
    def reach_in(module: nn.Module, args: Any) -> Any:
        x, bias, indices, excluded = args
        added = torch.zeros(part.num_experts, device=x.device)
        added[list(forced)] = torch.inf
        if masked:
            out = torch.zeros(part.num_experts, dtype=torch.bool, device=x.device)
            out[list(masked)] = True
            excluded = out if excluded is None else excluded | out
        if forced:
            bias = added if bias is None else bias + added
        return x, bias, indices, excluded

    return reach_in
