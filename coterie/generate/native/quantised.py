"""Products of a quantised row and a float32 vector, by address, as vector code for any processor.

LLVM's own vectoriser makes a third of this of the same loops over int4: it sees sixteen bytes and
not the nibbles in them. So the steps are given as vectors of eight; registers wider or narrower
than that are LLVM's business. Rows lie one after the other, and the memory is asked for some way
ahead of its use.

Each group of 32 elements of a row has numbers of its own. int8: a byte per element, and a bfloat16
scale for the group. int4: 16 bytes, low nibbles the first half of the group and high ones its
second, and two bfloat16, scale and minimum: an element is scale · nibble + minimum.
"""

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 8
GROUP, GROUP_BYTES = 32, 16
AHEAD = 2048
"""Bytes between what is read and what is asked for."""

_FLOAT, _BYTE, _INT, _WORD = ir.FloatType(), ir.IntType(8), ir.IntType(32), ir.IntType(64)
_FLOATS, _INTS = ir.VectorType(_FLOAT, LANES), ir.VectorType(_INT, LANES)
_ADDRESS = types.int64
_FAST = ("fast",)


@intrinsic
def dot_int8(typing: Any, row: Any, scale: Any, x: Any, size: Any) -> Any:
    """Return row · x; a last group may be shorter than 32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code, (row, scale, x, size) = _Code(builder), arguments
        total = cgutils.alloca_once_value(builder, _floats(0.0))
        groups = builder.udiv(size, _word(GROUP))
        with cgutils.for_range(builder, groups) as loop:
            first = builder.mul(loop.index, _word(GROUP))
            code.ask(builder.add(row, first))
            part = _floats(0.0)
            for k in range(4):
                place = builder.add(first, _word(LANES * k))
                small = code.load(builder.add(row, place), ir.VectorType(_BYTE, LANES), 1)
                number = builder.sitofp(builder.sext(small, _INTS), _FLOATS)
                part = code.product_and_sum(number, code.floats(x, place), part)
            code.add_product(total, part, code.everywhere(code.scale_of_int8(scale, loop.index)))
        last = cgutils.alloca_once_value(builder, code.sum(builder.load(total)))
        done = builder.mul(groups, _word(GROUP))
        with cgutils.for_range_slice(builder, done, size, _word(1)) as (i, _):
            small = code.load(builder.add(row, i), _BYTE, 1)
            number = builder.sitofp(builder.sext(small, _INT), _FLOAT)
            number = builder.fmul(number, code.scale_of_int8(scale, groups), flags=_FAST)
            code.add_product(last, number, code.load(code.float_at(x, i), _FLOAT, 4))
        return builder.load(last)

    return types.float32(*[_ADDRESS] * 3, types.int64), generate


@intrinsic
def dot_int4_spread(typing: Any, row: Any, scale: Any, spread: Any, sums: Any, size: Any) -> Any:
    """Return row · x, where `spread` and `sums` are what `spread_int4` made of x.

    Two groups are eight words of eight nibbles. Nibble k of all words is masked out in place, so it
    counts 16ᵏ times; x was divided by that, and put in the nibbles' order. What minima multiply was
    summed up beforehand. `size` is a multiple of 32.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code, (row, scale, spread, sums, size) = _Code(builder), arguments
        total = cgutils.alloca_once_value(builder, _floats(0.0))
        pairs = builder.udiv(size, _word(2 * GROUP))
        with cgutils.for_range(builder, pairs) as loop:
            first = builder.add(row, builder.mul(loop.index, _word(2 * GROUP_BYTES)))
            code.ask(first)
            nibbles = code.load(first, _INTS, 1)
            part = _floats(0.0)
            for k in range(8):
                last = k == 7  # masked in place it would be the sign
                one = (
                    builder.lshr(nibbles, _ints(28))
                    if last
                    else builder.and_(nibbles, _ints(15 << 4 * k))
                )
                place = builder.add(builder.mul(loop.index, _word(2 * GROUP)), _word(LANES * k))
                number = builder.sitofp(one, _FLOATS)
                part = code.product_and_sum(number, code.floats(spread, place), part)
            own = code.float_at(scale, builder.mul(loop.index, _word(2)))
            words = code.take(code.load(own, ir.VectorType(_INT, 2), 4), [0] * 4 + [1] * 4)
            whole = code.floats(sums, builder.mul(loop.index, _word(LANES)))
            code.add_scaled(total, words, part, whole)
        groups = builder.udiv(size, _word(GROUP))
        done = builder.mul(pairs, _word(2))
        with cgutils.for_range_slice(builder, done, groups, _word(1)) as (group, _):
            code.add_group(total, row, scale, spread, group)
        return code.sum(builder.load(total))

    return types.float32(*[_ADDRESS] * 4, types.int64), generate


@intrinsic
def spread_int4(typing: Any, x: Any, size: Any, spread: Any, sums: Any) -> Any:
    """Write x [size] as `dot_int4_spread` reads it, to `spread` [size] and `sums` [size / 8].

    A last group without a partner stays as it is.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code, (x, size, spread, sums) = _Code(builder), arguments
        pairs = builder.udiv(size, _word(2 * GROUP))
        with cgutils.for_range(builder, pairs) as loop:
            base = builder.mul(loop.index, _word(2 * GROUP))
            total = _floats(0.0)
            given = [code.floats(x, builder.add(base, _word(LANES * n))) for n in range(8)]
            for k in range(8):
                # Word l of group g holds elements 4 l + k // 2 of the half k % 2 of that group.
                ordered = code.gather(
                    given,
                    [
                        32 * (lane // 4) + 16 * (k % 2) + 4 * (lane % 4) + k // 2
                        for lane in range(8)
                    ],
                )
                total = builder.fadd(total, ordered, flags=_FAST)
                part = builder.fmul(ordered, _floats(1.0 if k == 7 else 16.0**-k))
                code.store(part, spread, builder.add(base, _word(LANES * k)))
            code.store(total, sums, builder.mul(loop.index, _word(LANES)))
        done = builder.mul(pairs, _word(2 * GROUP))
        with cgutils.for_range_slice(builder, done, size, _word(LANES)) as (i, _):
            code.store(code.floats(x, i), spread, i)
        return context.get_dummy_value()

    return types.void(_ADDRESS, types.int64, _ADDRESS, _ADDRESS), generate


class _Code:
    """The steps that the kernels are made of."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def load(self, address: Any, kind: Any, align: int) -> Any:
        value = self.builder.load(self.builder.inttoptr(address, kind.as_pointer()))
        value.align = align
        return value

    def float_at(self, base: Any, place: Any) -> Any:
        """Return the address of an element."""
        return self.builder.add(base, self.builder.mul(place, _word(4)))

    def floats(self, base: Any, place: Any) -> Any:
        """Return eight numbers from an element on."""
        return self.load(self.float_at(base, place), _FLOATS, 4)

    def store(self, value: Any, base: Any, place: Any) -> None:
        pointer = self.builder.inttoptr(self.float_at(base, place), value.type.as_pointer())
        self.builder.store(value, pointer).align = 4

    def take(self, vector: Any, places: Sequence[int], other: Any = None) -> Any:
        """Return the elements of a vector, or of two joined, at some places."""
        other = ir.Constant(vector.type, ir.Undefined) if other is None else other
        wanted = ir.Constant(ir.VectorType(_INT, len(places)), list(places))
        return self.builder.shuffle_vector(vector, other, wanted)

    def gather(self, vectors: Sequence[Any], places: Sequence[int]) -> Any:
        """Return elements of vectors of eight that follow each other."""
        found = ir.Constant(_FLOATS, ir.Undefined)
        for lane, place in enumerate(places):
            one = self.builder.extract_element(vectors[place // LANES], _INT(place % LANES))
            found = self.builder.insert_element(found, one, _INT(lane))
        return found

    def ask(self, address: Any) -> None:
        """Ask for the memory that will be read soon."""
        pointer = _BYTE.as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, _INT, _INT, _INT])
        prefetch = self.builder.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
        place = self.builder.inttoptr(self.builder.add(address, _word(AHEAD)), pointer)
        self.builder.call(prefetch, [place, _INT(0), _INT(3), _INT(1)])  # to read, to keep, data

    def product_and_sum(self, one: Any, other: Any, total: Any) -> Any:
        return self.builder.fadd(self.builder.fmul(one, other, flags=_FAST), total, flags=_FAST)

    def add_product(self, total: Any, one: Any, other: Any) -> None:
        self.builder.store(self.product_and_sum(one, other, self.builder.load(total)), total)

    def sum(self, vector: Any) -> Any:
        while (half := vector.type.count // 2) > 1:
            low, high = self.take(vector, range(half)), self.take(vector, range(half, 2 * half))
            vector = self.builder.fadd(low, high, flags=_FAST)
        ends = [self.builder.extract_element(vector, _INT(place)) for place in range(2)]
        return self.builder.fadd(*ends, flags=_FAST)

    def add_group(self, total: Any, row: Any, scale: Any, x: Any, group: Any) -> None:
        """Add the product of one group of int4 and 32 elements of x to a vector.

        Each byte goes to the bottom of a word, whose nibbles are then the numbers.
        """
        builder = self.builder
        first = builder.add(row, builder.mul(group, _word(GROUP_BYTES)))
        self.ask(first)
        packed = ir.VectorType(_BYTE, GROUP_BYTES)
        bytes_, nothing = self.load(first, packed, 1), ir.Constant(packed, [0] * GROUP_BYTES)
        part, whole = _floats(0.0), _floats(0.0)
        for half in range(2):
            places = [(LANES * half + lane, 16, 16, 16) for lane in range(LANES)]
            apart = self.take(bytes_, [place for word in places for place in word], nothing)
            words = builder.bitcast(apart, _INTS)
            low, high = builder.and_(words, _ints(15)), builder.lshr(words, _ints(4))
            for second, nibbles in enumerate((low, high)):
                within = _word(GROUP_BYTES * second + LANES * half)
                own = self.floats(x, builder.add(builder.mul(group, _word(GROUP)), within))
                part = self.product_and_sum(builder.sitofp(nibbles, _FLOATS), own, part)
                whole = builder.fadd(whole, own, flags=_FAST)
        word = self.load(self.float_at(scale, group), _INT, 4)
        self.add_scaled(total, self.everywhere(word), part, whole)

    def add_scaled(self, total: Any, words: Any, part: Any, whole: Any) -> None:
        """Add scale · part + minimum · whole, both given in each lane's word."""
        builder = self.builder
        scale = builder.bitcast(builder.shl(words, _ints(16)), _FLOATS)
        minimum = builder.bitcast(builder.and_(words, _ints(-(1 << 16))), _FLOATS)
        self.add_product(total, part, scale)
        self.add_product(total, whole, minimum)

    def scale_of_int8(self, scale: Any, group: Any) -> Any:
        builder = self.builder
        place = builder.add(scale, builder.mul(group, _word(2)))
        bits = builder.zext(self.load(place, ir.IntType(16), 2), _INT)
        return builder.bitcast(builder.shl(bits, _INT(16)), _FLOAT)

    def everywhere(self, value: Any) -> Any:
        """Return a vector with one value in all lanes."""
        vector = ir.Constant(ir.VectorType(value.type, LANES), ir.Undefined)
        return self.take(self.builder.insert_element(vector, value, _INT(0)), [0] * LANES)


def _word(value: int) -> Any:
    return ir.Constant(_WORD, value)


def _ints(value: int) -> Any:
    return ir.Constant(_INTS, [value] * LANES)


def _floats(value: float) -> Any:
    return ir.Constant(_FLOATS, [value] * LANES)
