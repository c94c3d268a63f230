"""One op at one size: what the benchmark checks, times, and times it beside."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """Every op's `bench.py` yields these from `cases(device)`, smallest first, with its arrays on the device.

    op: the public function's name. size: in the op's own unit, for most the number of series.
    check: raises AssertionError where the result is not the reference's.
    run: the op's public call, once; it need not wait for the card.
    bytes: the least traffic to and from memory that the op can do with; 0 where memory is not its limit.
    operations: the floating-point operations it cannot do without; 0 where arithmetic is not its limit.
    alternatives: what else computes the same from the same arrays, by name.
    """

    op: str
    size: int
    check: Callable[[], None]
    run: Callable[[], object]
    bytes: int
    operations: int
    alternatives: Mapping[str, Callable[[], object]]
