"""How matrices lie in memory, and products with them."""

from __future__ import annotations

import torch
from torch import Tensor

from coterie.generate.native.builder import Buffer, Builder, LoweringError, Matrix, Operation
from coterie.generate.native.kernels.product import PRODUCT, Product
from coterie.generate.native.kernels.rows import FLOAT32_ROWS
from coterie.quantise import QuantisedTensor


def matrix_of(
    builder: Builder, weight: Tensor, bias: Tensor | None = None, index: int | None = None
) -> Matrix:
    """Return how kernels read a matrix [out, in], or one of a pack [experts, out, in].

    Raises:
        LoweringError: they cannot.
    """
    if weight.device.type != "cpu":
        raise LoweringError("it is not on the CPU")
    if isinstance(weight, QuantisedTensor):
        raise LoweringError(f"its weights are {weight.kind}")
    if weight.dtype != torch.float32 or not weight.is_contiguous():
        raise LoweringError(f"its weights are {str(weight.dtype).removeprefix('torch.')}")
    builder.sources.append(weight)
    outer, inner = weight.shape[-2:]
    place, shift = builder.vector(bias), index or 0
    return Matrix(
        FLOAT32_ROWS.address, weight.data_ptr() + 4 * shift * outer * inner, 0,
        place and place + 4 * shift * outer, outer, inner, 4 * inner,
    )  # fmt: skip


def product_of(
    builder: Builder, matrix: Matrix, source: Buffer, out: Buffer, residual: Buffer | None = None
) -> Operation:
    """Return the operation out = matrix · source + bias + residual."""
    chunk = matrix.chunk()
    fields = Product(
        builder.count.data_ptr(), chunk, matrix.rows, matrix.weight, matrix.scale, matrix.bias,
        source.address, source.width, matrix.inner, matrix.outer, out.address, out.width,
        residual.address if residual else 0, residual.width if residual else 0,
    )  # fmt: skip
    return builder.operation(PRODUCT, fields, -(-matrix.outer // chunk))
