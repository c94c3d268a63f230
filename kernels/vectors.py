# Code that writes code: llvmlite has no types.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, import-untyped"
"""Rows of an array as vectors, whose lanes are worked on side by side.

LLVM leaves a loop over the lanes scalar, for it cannot tell that the rows do not overlap, and a store of
the smaller value becomes a masked store, which takes AMD's processors ten times as long as a plain one.
"""

import operator
from typing import TYPE_CHECKING

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, lower_cast, models, register_model

from kernels.arrays import Floats

if TYPE_CHECKING:

    class Truths:
        """One truth per lane."""

        def __and__(self, other: "Truths") -> "Truths": ...

    class Lanes:
        """One number per lane; a single number stands for as many of it."""

        def __add__(self, other: "Lanes | float") -> "Lanes": ...
        def __sub__(self, other: "Lanes | float") -> "Lanes": ...
        def __mul__(self, other: "Lanes | float") -> "Lanes": ...
        def __truediv__(self, other: "Lanes | float") -> "Lanes": ...
        def __rsub__(self, other: float) -> "Lanes": ...
        def __rtruediv__(self, other: float) -> "Lanes": ...
        def __lt__(self, other: "Lanes | float") -> Truths: ...
        def __gt__(self, other: "Lanes | float") -> Truths: ...
        def __ge__(self, other: "Lanes | float") -> Truths: ...
        def __abs__(self) -> "Lanes": ...

    def alike(value: float | np.float32 | np.float64, lanes: int) -> Lanes:
        """The value in each of so many lanes, a constant."""

    def load(rows: Floats, row: int, lanes: int) -> Lanes:
        """A row of the C-contiguous [rows, lanes]; the number of lanes is a constant."""

    def store(rows: Floats, row: int, values: Lanes) -> None:
        """The values, in the dtype of the rows, as a row."""

    def store_turned(rows: Floats, row: int, out: Floats, top: int, place: int, lanes: int) -> None:
        """As many rows as there are lanes as the columns from `place` of the C-contiguous out[top : top + lanes]."""

    def chosen(which: Truths, yes: Lanes | float, no: Lanes | float) -> Lanes: ...
    def least(one: Lanes, other: Lanes) -> Lanes:
        """The smaller of each two; no NaN."""

    def largest(one: Lanes, other: Lanes) -> Lanes:
        """The larger of each two; no NaN."""

    def there(values: Lanes) -> Truths:
        """Which are not NaN."""

    def root(values: Lanes) -> Lanes: ...
    def every(which: Truths) -> bool: ...

else:

    class Lanes(types.Type):
        def __init__(self, number, lanes):
            self.number, self.lanes = number, lanes
            super().__init__(name=f"Lanes({number}, {lanes})")

    @register_model(Lanes)
    class _Vector(models.PrimitiveModel):
        def __init__(self, manager, kind):
            numbers = {types.float32: ir.FloatType(), types.float64: ir.DoubleType(), types.boolean: ir.IntType(1)}
            super().__init__(manager, kind, ir.VectorType(numbers[kind.number], kind.lanes))

    @lower_cast(types.Float, Lanes)
    @lower_cast(types.Integer, Lanes)
    def _spread(context, builder, given, wanted, value):
        vector = context.get_value_type(wanted)
        nothing = ir.Constant(vector, ir.Undefined)
        first = builder.insert_element(nothing, context.cast(builder, value, given, wanted.number), ir.IntType(32)(0))
        return builder.shuffle_vector(first, nothing, _order([0] * wanted.lanes))

    def _order(lanes):
        return ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes)

    def _operator(operation, generate, truths=False):
        """Between lanes, or lanes and a number."""

        @infer_global(operation)
        class _Typed(AbstractTemplate):
            def generic(self, args, kws):
                lanes = next((kind for kind in args if isinstance(kind, Lanes)), None)
                if lanes is None or not all(kind == lanes or isinstance(kind, types.Number) for kind in args):
                    return None
                return signature(Lanes(types.boolean, lanes.lanes) if truths else lanes, *[lanes] * len(args))

        def lower(context, builder, signature, args):
            return generate(builder, *args)

        lower_builtin(operation, Lanes, Lanes)(lower)
        lower_builtin(operation, Lanes)(lower)

    def _called(name, *fastmath):
        def generate(builder, *args):
            vector = args[0].type
            title = f"llvm.{name}.v{vector.count}{vector.element.intrinsic_name}"
            kind = ir.FunctionType(vector, [vector] * len(args))
            return builder.call(builder.module.declare_intrinsic(title, (), kind), args, fastmath=fastmath)

        return generate

    def _compared(sign):
        return lambda builder, left, right: builder.fcmp_ordered(sign, left, right)

    for _operation in (operator.add, operator.iadd):
        _operator(_operation, lambda builder, left, right: builder.fadd(left, right, flags=("contract",)))
    _operator(operator.sub, lambda builder, left, right: builder.fsub(left, right, flags=("contract",)))
    _operator(operator.mul, lambda builder, left, right: builder.fmul(left, right, flags=("contract",)))
    _operator(operator.truediv, lambda builder, left, right: builder.fdiv(left, right))
    _operator(operator.and_, lambda builder, left, right: builder.and_(left, right))
    for _operation, _sign in ((operator.lt, "<"), (operator.gt, ">"), (operator.ge, ">=")):
        _operator(_operation, _compared(_sign), truths=True)
    _operator(abs, _called("fabs"))

    def _place(context, builder, kind, array, row, lanes):
        """Where a row of an array begins, and how many bytes one number takes."""
        array = context.make_array(kind)(context, builder, array)
        start = builder.gep(array.data, [builder.mul(row, row.type(lanes))])
        vector = ir.VectorType(context.get_data_type(kind.dtype), lanes)
        return builder.bitcast(start, vector.as_pointer()), kind.dtype.bitwidth // 8

    @intrinsic(prefer_literal=True)
    def alike(context, value, lanes):
        kind = Lanes(value, lanes.literal_value)

        def generate(target, builder, signature, args):
            return target.cast(builder, args[0], value, kind)

        return kind(value, lanes), generate

    @intrinsic(prefer_literal=True)
    def load(context, rows, row, lanes):
        kind = Lanes(rows.dtype, lanes.literal_value)

        def generate(target, builder, signature, args):
            place, size = _place(target, builder, rows, *args[:2], kind.lanes)
            return builder.load(place, align=size)

        return kind(rows, types.intp, lanes), generate

    @intrinsic
    def store(context, rows, row, values):
        def generate(target, builder, signature, args):
            place, size = _place(target, builder, rows, *args[:2], values.lanes)
            narrowed = args[2] if rows.dtype == values.number else builder.fptrunc(args[2], place.type.pointee)
            builder.store(narrowed, place, align=size)
            return target.get_dummy_value()

        return types.void(rows, types.intp, values), generate

    @intrinsic(prefer_literal=True)
    def store_turned(context, rows, row, out, top, place, lanes):
        number = lanes.literal_value

        def turned(builder, block):
            """In each round lanes change places with rows that are as far apart."""
            for span in (1 << power for power in range(number.bit_length() - 1)):
                kept = _order([lane if not lane & span else number + lane - span for lane in range(number)])
                moved = _order([lane + span if not lane & span else number + lane for lane in range(number)])
                for low in (low for low in range(number) if not low & span):
                    two = block[low], block[low + span]
                    block[low], block[low + span] = (builder.shuffle_vector(*two, order) for order in (kept, moved))
            return block

        def generate(target, builder, signature, args):
            block = []
            for index in range(number):
                begin, size = _place(target, builder, rows, args[0], builder.add(args[1], args[1].type(index)), number)
                block.append(builder.load(begin, align=size))
            columns = builder.extract_value(target.make_array(out)(target, builder, args[2]).shape, 1)
            for lane, values in enumerate(turned(builder, block)):
                start = builder.mul(builder.add(args[3], args[3].type(lane)), columns)
                begin, size = _place(target, builder, out, args[2], builder.add(start, args[4]), 1)
                builder.store(values, builder.bitcast(begin, values.type.as_pointer()), align=size)
            return target.get_dummy_value()

        return types.void(rows, types.intp, out, types.intp, types.intp, lanes), generate

    @intrinsic
    def chosen(context, which, yes, no):
        kind = yes if isinstance(yes, Lanes) else no

        def generate(target, builder, signature, args):
            return builder.select(*args)

        return kind(which, kind, kind), generate

    def _of_two(name):
        @intrinsic
        def pick(context, one, other):
            def generate(target, builder, signature, args):
                return _called(name, "nnan", "nsz")(builder, *args)

            return one(one, one), generate

        return pick

    least, largest = _of_two("minnum"), _of_two("maxnum")

    @intrinsic
    def root(context, values):
        def generate(target, builder, signature, args):
            return _called("sqrt")(builder, *args)

        return values(values), generate

    @intrinsic
    def there(context, values):
        def generate(target, builder, signature, args):
            return builder.fcmp_ordered("ord", args[0], args[0])

        return Lanes(types.boolean, values.lanes)(values), generate

    @intrinsic
    def every(context, which):
        def generate(target, builder, signature, args):
            bits = ir.IntType(which.lanes)
            return builder.icmp_unsigned("==", builder.bitcast(args[0], bits), bits(-1))

        return types.boolean(which), generate
