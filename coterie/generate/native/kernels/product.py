"""Products of vectors with the rows of a matrix, and what is added to them."""

from collections import namedtuple

from numba.np.numpy_support import carray

from coterie.generate.native.compile import Kernel
from coterie.generate.native.machine import fields_at, floats_at, kernel, rows_product, word_at

Product = namedtuple(
    "Product",
    "entries chunk rows weight scale bias source source_stride inner outer out out_stride "
    "residual residual_stride",
)
"""out = in · weightᵀ + bias + residual for every entry; a task computes `chunk` rows.

`rows` is the function for how the matrix is stored; a bias or residual of 0 stands for none;
strides are in elements.
"""


@kernel
def add(target, source, number):
    a, b = carray(floats_at(target), number), carray(floats_at(source), number)
    for i in range(number):
        a[i] += b[i]


def _product(op, numbers, part, item, thread):
    op = fields_at(op)
    start = part * op[1]
    stop = min(start + op[1], op[9])
    for entry in range(word_at(op[0], 0)):
        out = op[10] + 4 * (entry * op[11] + start)
        rows_product(op[2], op[3], op[4], start, stop, op[6] + 4 * entry * op[7], op[8], out)
        if op[5]:
            add(out, op[5] + 4 * start, stop - start)
        if op[12]:
            add(out, op[12] + 4 * (entry * op[13] + start), stop - start)


PRODUCT = Kernel(_product)
