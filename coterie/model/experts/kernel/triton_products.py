"""A product per expert over sorted rows, in Triton: no size is read on the host.

Row blocks are laid out on the device: expert e has ⌈rows / BLOCK⌉ of them, so that there are at
most ⌊R / BLOCK⌋ + E, of which those beyond the last do nothing. For float32 and for GPUs where
torch's grouped product goes from expert to expert. Imported where it runs: triton is optional.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false, reportIndexIssue=false

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_ROWS, _OUT = 64, 64  # of a tile, as the kernels have it


@triton.jit
def _products_kernel(
    rows, weights, out, blocks, ends, width, outputs,
    row_stride, expert_stride, in_stride, out_stride, precision: tl.constexpr,
):  # fmt: skip
    ROWS: tl.constexpr = 64
    OUT: tl.constexpr = 64
    IN: tl.constexpr = 32  # channels summed at once
    block = tl.program_id(0)
    start = tl.load(blocks + block)
    if start < 0:
        return
    expert = tl.load(blocks + tl.num_programs(0) + block)
    at = start + tl.arange(0, ROWS)
    real = at < tl.load(ends + expert)
    channels = tl.program_id(1) * OUT + tl.arange(0, OUT)
    total = tl.zeros((ROWS, OUT), dtype=tl.float32)
    for first in range(0, width, IN):
        summed = first + tl.arange(0, IN)
        x = tl.load(rows + at[:, None] * row_stride + summed[None, :],
                    mask=real[:, None] & (summed[None, :] < width), other=0.0)  # fmt: skip
        w = tl.load(weights + expert * expert_stride + summed[:, None] * in_stride
                    + channels[None, :] * out_stride,
                    mask=(summed[:, None] < width) & (channels[None, :] < outputs),
                    other=0.0)  # fmt: skip
        total = tl.dot(x, w, total, input_precision=precision)
    tl.store(out + at[:, None] * outputs + channels[None, :], total.to(out.dtype.element_ty),
             mask=real[:, None] & (channels[None, :] < outputs))  # fmt: skip


@triton.jit
def _gradients_kernel(
    rows, gradients, out, ends, width, outputs, row_stride, gradient_stride,
    precision: tl.constexpr,
):  # fmt: skip
    OUT: tl.constexpr = 64
    IN: tl.constexpr = 32  # rows summed at once
    expert = tl.program_id(0).to(tl.int64)
    end = tl.load(ends + expert)
    start = tl.load(ends + expert - 1, mask=expert > 0, other=0)
    channels = tl.program_id(1) * OUT + tl.arange(0, OUT)
    inputs = tl.program_id(2) * OUT + tl.arange(0, OUT)
    total = tl.zeros((OUT, OUT), dtype=tl.float32)
    for first in range(start, end, IN):
        at = first + tl.arange(0, IN)
        g = tl.load(gradients + at[None, :] * gradient_stride + channels[:, None],
                    mask=(at[None, :] < end) & (channels[:, None] < outputs),
                    other=0.0)  # fmt: skip
        x = tl.load(rows + at[:, None] * row_stride + inputs[None, :],
                    mask=(at[:, None] < end) & (inputs[None, :] < width), other=0.0)  # fmt: skip
        total = tl.dot(g, x, total, input_precision=precision)
    tl.store(out + expert * outputs * width + channels[:, None] * width + inputs[None, :],
             total.to(out.dtype.element_ty),
             mask=(channels[:, None] < outputs) & (inputs[None, :] < width))  # fmt: skip


def expert_products(rows: Tensor, weights: Tensor, counts: Tensor) -> Tensor:
    """Return rows·weights[e], as `products.expert_products` does; rows of no expert are undefined.

    Args:
        rows: sorted by expert, [R, in]; those of no expert come last.
        weights: [E, in, out], of any strides.
        counts: rows of each expert, [E].
    """
    rows, (experts, width, outputs) = _inner_contiguous(rows), weights.shape
    out = rows.new_empty(rows.shape[0], outputs)
    ends = counts.cumsum(0)
    blocks = rows.shape[0] // _ROWS + experts
    block_ends = ((counts + _ROWS - 1) // _ROWS).cumsum(0)
    number = torch.arange(blocks, device=rows.device)
    expert = torch.searchsorted(block_ends, number, right=True)
    held = expert.clamp(max=experts - 1)
    begins = torch.cat((block_ends.new_zeros(1), block_ends[:-1]))[held]
    starts = (ends - counts)[held] + (number - begins) * _ROWS
    starts = torch.where(expert < experts, starts, -1)
    grid = (blocks, -(-outputs // _OUT))
    _products_kernel[grid](
        rows, weights, out, torch.cat((starts, held)), ends, width, outputs, rows.stride(0),
        *weights.stride(), _precision(rows),
    )  # fmt: skip
    return out


def weight_gradients(rows: Tensor, gradients: Tensor, counts: Tensor) -> Tensor:
    """Return gradientsᵀ·rows, [E, out, in], over the rows of each expert; zeros where it has none.

    Args:
        rows: sorted by expert, [R, in].
        gradients: likewise, [R, out].
        counts: rows of each expert, [E].
    """
    rows, gradients = _inner_contiguous(rows), _inner_contiguous(gradients)
    experts, width, outputs = counts.shape[0], rows.shape[1], gradients.shape[1]
    out = rows.new_empty(experts, outputs, width)
    grid = (experts, -(-outputs // _OUT), -(-width // _OUT))
    _gradients_kernel[grid](
        rows, gradients, out, counts.cumsum(0), width, outputs, rows.stride(0),
        gradients.stride(0), _precision(rows),
    )  # fmt: skip
    return out


def _inner_contiguous(x: Tensor) -> Tensor:
    return x if x.stride(1) == 1 else x.contiguous()


def _precision(x: Tensor) -> Any:
    """Return how float32 is multiplied: exactly, unless torch is allowed to do otherwise."""
    exact = torch.get_float32_matmul_precision() == "highest"
    return "ieee" if exact or x.dtype != torch.float32 else "tf32"
