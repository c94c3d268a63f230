# Code that writes code: llvmlite has no types.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, import-untyped"
"""Two rows of a NumPy array compared lane by lane in vector registers.

LLVM leaves a loop over the lanes scalar, for it cannot tell that the rows do not overlap, and a store of
the smaller value becomes a masked store, which takes AMD's processors ten times as long as a plain one.
"""

from typing import TYPE_CHECKING

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from kernels.arrays import Floats

LANES = 16

if TYPE_CHECKING:

    def order(rows: Floats, low: int, high: int) -> None:
        """Put the smaller of each two values in row `low` of [size, LANES], the larger in row `high`; no NaN."""

else:

    @intrinsic
    def order(context, rows, low, high):
        def generate(target, builder, signature, arguments):
            array = target.make_array(rows)(target, builder, arguments[0])
            number = target.get_data_type(rows.dtype)
            vector = ir.VectorType(number, LANES)
            width = rows.dtype.bitwidth // 8

            def place(row):
                start = builder.gep(array.data, [builder.mul(row, ir.Constant(row.type, LANES))])
                return builder.bitcast(start, vector.as_pointer())

            def chosen(name, values):
                kind = ir.FunctionType(vector, [vector, vector])
                title = f"llvm.{name}.v{LANES}{number.intrinsic_name}"
                function = builder.module.declare_intrinsic(title, (), kind)
                return builder.call(function, values, fastmath=("nnan", "nsz"))

            places = [place(row) for row in arguments[1:]]
            values = [builder.load(each, align=width) for each in places]
            for each, name in zip(places, ("minnum", "maxnum"), strict=True):
                builder.store(chosen(name, values), each, align=width)
            return target.get_dummy_value()

        return types.void(rows, low, high), generate
