"""Activation checkpointing: blocks that keep their inputs and are computed again when needed."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
    noop_context_fn,
)

from coterie.model.context import ForwardContext
from coterie.model.experts import RouterStats
from coterie.model.replay import RoutingReplay

Checkpointing = bool | Literal["selective"]
_aten = torch.ops.aten
# Dear to compute again for what they hold; those that write where they are told cannot be kept.
_PRODUCTS = {
    _aten.mm.default, _aten.addmm.default, _aten.bmm.default, _aten.baddbmm.default,
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
    _aten._scaled_dot_product_flash_attention.default,
    _aten._scaled_dot_product_efficient_attention.default,
    _aten._scaled_dot_product_cudnn_attention.default,
}  # fmt: skip


def through(
    module: nn.Module, again: Checkpointing, *inputs: Tensor, context: ForwardContext
) -> tuple[Tensor, RouterStats | None]:
    """Send a stream through a block, which is computed again in the backward pass if so asked."""
    if again and torch.is_grad_enabled():
        context = context.but(replay=context.replay or RoutingReplay())
        kept = _SELECTIVE if again == "selective" else noop_context_fn
        if not torch.compiler.is_compiling() and (modes := _get_current_function_mode_stack()):
            kept = functools.partial(_again_within, modes, kept)
        return checkpoint(module, *inputs, context, use_reentrant=False, context_fn=kept)
    return module(*inputs, context)


class _Within(contextlib.ExitStack):
    """Contexts that are entered together, each time anew."""

    def __init__(self, contexts: Sequence[contextlib.AbstractContextManager[Any]]) -> None:
        super().__init__()
        self._contexts = contexts

    def __enter__(self) -> "_Within":
        for each in self._contexts:
            self.enter_context(each)
        return self


def _again_within(
    modes: Sequence[TorchFunctionMode], kept: Callable[[], tuple[Any, Any]]
) -> tuple[Any, Any]:
    """Have a block computed again within the modes of the first time, which autograd drops."""
    first, later = kept()
    return first, _Within([*modes, later])


def _policy(pass_: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    kept = operator in _PRODUCTS
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE


_SELECTIVE = functools.partial(create_selective_checkpoint_contexts, _policy)
