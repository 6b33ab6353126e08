"""How matrices lie in memory, and products with them."""

from functools import singledispatch
from typing import NamedTuple

import torch
from torch import Tensor

from coterie.generate.native.builder import Buffer, Builder, LoweringError, Matrix, Operation
from coterie.generate.native.compile import Kernel
from coterie.generate.native.kernels.rows import FLOAT32_ROWS, INT4_ROWS, INT8_ROWS
from coterie.generate.native.kernels.vectors import PRODUCT, Product
from coterie.model.attention.grouped import GroupedAttentionPart
from coterie.model.attention.latent_vectors import LatentVectorAttentionPart
from coterie.quantise import Int4Tensor, Int8Tensor, QuantisedTensor


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
        return _quantised(weight, builder, bias, index or 0)
    if weight.dtype != torch.float32 or not weight.is_contiguous():
        raise LoweringError(f"its weights are {str(weight.dtype).removeprefix('torch.')}")
    builder.sources.append(weight)
    outer, inner = weight.shape[-2:]
    place, shift = builder.vector(bias), index or 0
    return Matrix(
        FLOAT32_ROWS.address, weight.data_ptr() + 4 * shift * outer * inner, 0,
        place and place + 4 * shift * outer, outer, inner, 4 * inner,
    )  # fmt: skip


def table_of(builder: Builder, table: Tensor) -> tuple[int, int]:
    """Return the addresses of a table's rows and, where they are int8, of their scales.

    Raises:
        LoweringError: they are stored otherwise.
    """
    if not isinstance(table, Int8Tensor):
        return builder.vector(table), 0
    builder.sources += [table.data8, table.scale]
    return table.data8.data_ptr(), table.scale.data_ptr()


@singledispatch
def _quantised(weight: Tensor, builder: Builder, bias: Tensor | None, index: int) -> Matrix:
    raise LoweringError(f"its weights are {getattr(weight, 'kind', type(weight).__name__)}")


@_quantised.register
def _(weight: Int8Tensor, builder: Builder, bias: Tensor | None, index: int) -> Matrix:
    inner = weight.shape[-1]
    parts = _Parts(builder, weight.data8, weight.scale)
    return parts.matrix(INT8_ROWS, bias, index, inner, inner)


@_quantised.register
def _(weight: Int4Tensor, builder: Builder, bias: Tensor | None, index: int) -> Matrix:
    inner = weight.shape[-1]
    parts = _Parts(builder, weight.packed, weight.scale)
    return parts.matrix(INT4_ROWS, bias, index, inner, weight.packed.shape[-1])


class _Parts(NamedTuple):
    """The tensors of a quantised matrix; rows of both lie one after the other."""

    builder: Builder
    values: Tensor
    scale: Tensor

    def matrix(
        self, rows: Kernel, bias: Tensor | None, index: int, inner: int, row_bytes: int
    ) -> Matrix:
        """Return how kernels read the matrix, or one of a pack."""
        if not self.values.is_contiguous() or not self.scale.is_contiguous():
            raise LoweringError("its rows do not lie one after the other")
        self.builder.sources += [self.values, self.scale]
        place, outer = self.builder.vector(bias), self.values.shape[-2]
        experts = self.values.shape[0] if self.values.ndim == 3 else 1
        scale_bytes = self.scale.nbytes // (outer * experts)
        return Matrix(
            rows.address, self.values.data_ptr() + index * outer * row_bytes,
            self.scale.data_ptr() + index * outer * scale_bytes,
            place and place + 4 * index * outer, outer, inner, row_bytes + scale_bytes,
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


def multiplied(
    builder: Builder,
    weight: Tensor,
    source: Buffer,
    bias: Tensor | None = None,
    residual: Buffer | None = None,
) -> Buffer:
    """Add a product; return where weight · source + bias + residual will be."""
    out = builder.buffer(weight.shape[0])
    builder.stage(product_of(builder, matrix_of(builder, weight, bias), source, out, residual))
    return out


def projected(
    builder: Builder, part: GroupedAttentionPart | LatentVectorAttentionPart, source: Buffer
) -> tuple[Buffer, Buffer, Buffer]:
    """Add the products that make queries, keys and values; return where they will be."""
    weights = (
        (part.query, part.query_bias), (part.key, part.key_bias), (part.value, part.value_bias)
    )  # fmt: skip
    query, key, value = outs = [builder.buffer(weight.shape[0]) for weight, _ in weights]
    builder.stage(*(
        product_of(builder, matrix_of(builder, *each), source, out)
        for each, out in zip(weights, outs, strict=True)
    ))  # fmt: skip
    return query, key, value
