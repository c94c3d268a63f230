# Code that writes code: llvmlite has no types.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, import-untyped"
"""Rows of a NumPy array compared lane by lane in vector registers.

LLVM leaves a loop over the lanes scalar, for it cannot tell that the rows do not overlap, and a store of
the smaller value becomes a masked store, which takes AMD's processors ten times as long as a plain one.
"""

from typing import TYPE_CHECKING

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.arrays import Floats

LANES = 16

if TYPE_CHECKING:

    def order(rows: Floats, low: int, high: int) -> None:
        """Put the smaller of each two values in row `low` of [size, LANES], the larger in row `high`; no NaN."""

    def exchange(rows: Floats, moving: Floats) -> None:
        """Take moving[0] out of the sorted columns of [size + 1, LANES] and put moving[1] in.

        moving: [2, LANES], a value per column. The last row of the columns is infinite; no NaN.
        """

else:

    class _Lanes:
        """A row of a [size, LANES] array as one vector."""

        def __init__(self, context, builder, kind, array):
            self.builder, self.array = builder, context.make_array(kind)(context, builder, array)
            self.number, self.width = context.get_data_type(kind.dtype), kind.dtype.bitwidth // 8
            self.vector = ir.VectorType(self.number, LANES)

        def _place(self, row):
            start = self.builder.gep(self.array.data, [self.builder.mul(row, ir.Constant(row.type, LANES))])
            return self.builder.bitcast(start, self.vector.as_pointer())

        def load(self, row):
            return self.builder.load(self._place(row), align=self.width)

        def store(self, values, row):
            self.builder.store(values, self._place(row), align=self.width)

        def chosen(self, name, values):
            """Of each lane the smaller (`minnum`) or the larger value (`maxnum`)."""
            kind = ir.FunctionType(self.vector, [self.vector, self.vector])
            title = f"llvm.{name}.v{LANES}{self.number.intrinsic_name}"
            function = self.builder.module.declare_intrinsic(title, (), kind)
            return self.builder.call(function, values, fastmath=("nnan", "nsz"))

    @intrinsic
    def order(context, rows, low, high):
        def generate(target, builder, signature, arguments):
            lanes = _Lanes(target, builder, rows, arguments[0])
            values = [lanes.load(row) for row in arguments[1:]]
            for name, row in zip(("minnum", "maxnum"), arguments[1:], strict=True):
                lanes.store(lanes.chosen(name, values), row)
            return target.get_dummy_value()

        return types.void(rows, low, high), generate

    @intrinsic
    def exchange(context, rows, moving):
        def generate(target, builder, signature, arguments):
            lanes, two = (_Lanes(target, builder, *each) for each in zip(signature.args, arguments, strict=True))
            size = builder.extract_value(lanes.array.shape, 0)
            leaving, entering = (two.load(ir.Constant(size.type, row)) for row in (0, 1))
            below = ir.Constant(lanes.vector, [float("-inf")] * LANES)
            before, here = (cgutils.alloca_once_value(builder, first) for first in (below, lanes.load(size.type(0))))
            one = ir.Constant(size.type, 1)
            with cgutils.for_range(builder, builder.sub(size, one)) as loop:
                value, above = builder.load(here), lanes.load(builder.add(loop.index, one))
                stays = builder.fcmp_ordered("<", value, leaving)
                kept = builder.select(stays, value, above)
                put = lanes.chosen("maxnum", [builder.load(before), entering])
                lanes.store(lanes.chosen("minnum", [kept, put]), loop.index)
                builder.store(kept, before)
                builder.store(above, here)
            return target.get_dummy_value()

        return types.void(rows, moving), generate
