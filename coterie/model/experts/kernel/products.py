"""A product per expert over sorted rows, as operators that compilers keep in their graph.

On a CPU `torch.nn.functional.grouped_mm` does the same, first filling what it writes with zeros,
and a compiler knows it in bfloat16 alone. These take every type of float and any sides. On CUDA
they run in Triton, where it is installed.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def expert_products(rows: Tensor, weights: Tensor, counts: Tensor) -> Tensor:
    """Return rows·weights[e], [R, out], for the rows of each expert e.

    Args:
        rows: sorted by expert, [R, in].
        weights: [E, in, out], of any strides.
        counts: rows of each expert, [E].
    """
    return _of(_products, "expert_products", rows)(rows, weights, counts)


def weight_gradients(rows: Tensor, gradients: Tensor, counts: Tensor) -> Tensor:
    """Return gradientsᵀ·rows, [E, out, in], over the rows of each expert; zeros where it has none.

    Args:
        rows: sorted by expert, [R, in].
        gradients: likewise, [R, out].
        counts: rows of each expert, [E].
    """
    return _of(_weight_gradients, "weight_gradients", rows)(rows, gradients, counts)


def add_products(out: Tensor, rows: Tensor, weights: Tensor, counts: Tensor) -> None:
    """Add rows·weights[e] to what is there, [R, out], for the rows of each expert e."""
    sizes = counts.tolist()
    for into, some, weight in zip(out.split(sizes), rows.split(sizes), weights, strict=True):
        into.addmm_(some, weight)


class ExpertLinear(torch.autograd.Function):
    """x·weight[e]ᵀ for the rows of each expert, by the two operators."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
        """Return the products, [R, out], of x [R, in] and weight [E, out, in]."""
        ctx.save_for_backward(x, weight, counts)
        return expert_products(x, weight.mT, counts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Return the gradients that are wanted."""
        x, weight, counts = ctx.saved_tensors
        gradient, (to_x, to_weight, _) = gradients[0], ctx.needs_input_grad
        return (
            expert_products(gradient, weight, counts) if to_x else None,
            weight_gradients(x, gradient, counts) if to_weight else None,
            None,
        )


def _products(rows: Tensor, weights: Tensor, counts: Tensor) -> Tensor:
    out = rows.new_empty(rows.shape[0], weights.shape[2])
    start = 0
    for weight, size in zip(weights.unbind(0), counts.tolist(), strict=True):
        if size:
            torch.mm(rows[start : start + size], weight, out=out[start : start + size])
            start += size
    return out


def _weight_gradients(rows: Tensor, gradients: Tensor, counts: Tensor) -> Tensor:
    out = rows.new_empty(counts.shape[0], gradients.shape[1], rows.shape[1])
    start = 0
    for expert, size in zip(out.unbind(0), counts.tolist(), strict=True):
        if not size:
            expert.zero_()
            continue
        torch.mm(gradients[start : start + size].mT, rows[start : start + size], out=expert)
        start += size
    return out


def _of(function: Any, name: str, rows: Tensor) -> Any:
    """Return the operator, or on a CPU where no compiler looks the function: it costs less."""
    plain = rows.device.type == "cpu" and not torch.compiler.is_compiling()
    return function if plain else getattr(torch.ops.coterie, name)


@functools.cache
def has_triton() -> bool:
    """Whether Triton is installed."""
    return importlib.util.find_spec("triton") is not None


def _in_triton(name: str) -> Callable[..., Tensor]:
    def call(
        *tensors: Tensor,
    ) -> Tensor:  # imported only now: it takes its time, and may be missing
        module = importlib.import_module("coterie.model.experts.kernel.triton_products")
        return getattr(module, name)(*tensors)  # type: ignore[no-any-return]

    return call


_LIBRARY = torch.library.Library("coterie", "DEF")
_LIBRARY.define("expert_products(Tensor rows, Tensor weights, Tensor counts) -> Tensor")
_LIBRARY.define("weight_gradients(Tensor rows, Tensor gradients, Tensor counts) -> Tensor")
_LIBRARY.impl("expert_products", _products, "CPU")
_LIBRARY.impl("weight_gradients", _weight_gradients, "CPU")
for _name in ("expert_products", "weight_gradients"):
    _LIBRARY.impl(_name, _in_triton(_name), "CUDA")


@torch.library.register_fake("coterie::expert_products", lib=_LIBRARY)
def _(rows: Tensor, weights: Tensor, counts: Tensor) -> Tensor:
    return rows.new_empty(rows.shape[0], weights.shape[2])


@torch.library.register_fake("coterie::weight_gradients", lib=_LIBRARY)
def _(rows: Tensor, gradients: Tensor, counts: Tensor) -> Tensor:
    return rows.new_empty(counts.shape[0], gradients.shape[1], rows.shape[1])
