"""What is usual for a series, and how far it is from that."""

from dataclasses import dataclass

from kernels.arrays import Floats


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """The window that ends at each step, each of the values' shape but for the number of steps.

    `median` and `mad` are in the signal's unit; `deviation`, of the step's own sample, is without unit.
    """

    median: Floats
    mad: Floats
    deviation: Floats
