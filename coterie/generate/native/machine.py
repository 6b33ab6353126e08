"""What kernels need beneath numba's own language: memory by address, atomics, waiting.

Addresses are plain integers, so that one compiled function serves every model.
"""

import platform
from collections.abc import Callable
from inspect import unwrap
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic as numba_intrinsic
from numba.np.numpy_support import carray

from coterie.generate.native.operations import FIELDS

# Sums may be reordered, which vectorising needs; infinities keep their meaning (masks use them).
REORDERED = {"reassoc", "nsz", "arcp", "contract", "afn"}
EXACT = {"nsz", "arcp", "contract"}

_INNER = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that is compiled as part of what calls it."""
    return njit(fastmath=REORDERED, **_INNER)(unwrap(function))


def exact_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the same of a function where the order of operations matters."""
    return njit(fastmath=EXACT, **_INNER)(unwrap(function))


def intrinsic(function: Callable[..., Any]) -> Any:
    """Return a function that generates LLVM's code itself."""
    return numba_intrinsic(function)


_ORDER = "seq_cst"
_WORD = ir.IntType(64)
_X86, _ARM = ("x86_64", "AMD64"), ("aarch64", "arm64")


def _pointer(pointee: Any, kind: Any) -> Callable[..., Any]:
    """Return an intrinsic that takes an address for a pointer."""

    @intrinsic
    def take(context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], pointee.as_pointer())

        return types.CPointer(kind)(types.int64), generate

    return take


floats_at = _pointer(ir.FloatType(), types.float32)
words_at = _pointer(_WORD, types.int64)
bytes_at = _pointer(ir.IntType(8), types.int8)
halves_at = _pointer(ir.IntType(16), types.uint16)
doubles_at = _pointer(ir.DoubleType(), types.float64)


@intrinsic
def call_at(
    context: Any, address: Any, op: Any, numbers: Any, part: Any, item: Any, thread: Any
) -> Any:
    """Call the compiled operation at an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [_WORD] * 5)
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), generate


@intrinsic
def rows_product(
    context: Any,
    rows: Any,
    weight: Any,
    scale: Any,
    start: Any,
    stop: Any,
    x: Any,
    size: Any,
    out: Any,
) -> Any:
    """Multiply rows start … stop of a matrix by x, by the function at an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [_WORD] * 7)
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 8), generate


@kernel
def fields_at(op):
    """Return an operation's own words."""
    return carray(words_at(op), FIELDS)


@kernel
def number_at(numbers, index):
    """Return one of the numbers that go with an operation."""
    return np.float32(carray(doubles_at(numbers), index + 1)[index])


@kernel
def word_at(address, index):
    """Return one of several whole numbers at an address."""
    return carray(words_at(address), index + 1)[index]


@kernel
def float_at(address, index):
    """Return one of several float32 at an address."""
    return carray(floats_at(address), index + 1)[index]


@intrinsic
def as_float(context: Any, bits: Any) -> Any:
    """Return the float32 with these 32 bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic
def word(context: Any, address: Any) -> Any:
    """Return the 64-bit integer at an address, as every thread has left it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], _WORD.as_pointer())
        return builder.load_atomic(place, _ORDER, 8)

    return types.int64(types.int64), generate


@intrinsic
def set_word(context: Any, address: Any, value: Any) -> Any:
    """Set the integer at an address; what was written before is seen by whoever sees it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], _WORD.as_pointer())
        builder.store_atomic(arguments[1], place, _ORDER, 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def add_word(context: Any, address: Any, value: Any) -> Any:
    """Add to the integer at an address and return what it was."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], _WORD.as_pointer())
        return builder.atomic_rmw("add", place, arguments[1], _ORDER)

    return types.int64(types.int64, types.int64), generate


@intrinsic
def swap_word(context: Any, address: Any, expected: Any, value: Any) -> Any:
    """Set the integer at an address if it is as expected; return whether it was."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], _WORD.as_pointer())
        pair = builder.cmpxchg(place, arguments[1], arguments[2], _ORDER, _ORDER)
        return builder.extract_value(pair, 1)

    return types.boolean(types.int64, types.int64, types.int64), generate


@intrinsic
def pause(context: Any) -> Any:
    """Tell the core that this thread is waiting, where it has an instruction for that."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if platform.machine() in _X86:
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(get_or_insert_function(builder.module, kind, "llvm.x86.sse2.pause"), [])
        elif platform.machine() in _ARM:
            hint = ir.IntType(32)
            kind = ir.FunctionType(ir.VoidType(), [hint])
            function = get_or_insert_function(builder.module, kind, "llvm.aarch64.hint")
            builder.call(function, [hint(1)])
        return context.get_dummy_value()

    return types.void(), generate


give_way = types.ExternalFunction("sched_yield", types.int32())
"""Let another thread of this machine have the core."""
