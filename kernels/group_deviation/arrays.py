"""The arrays that go in and come out: their shapes, and a clear error where one does not fit."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.arrays import INTEGERS, Floats, Integers, check_floats


@dataclass(frozen=True, slots=True, eq=False)
class Deviation:
    """What the members of each group have in common, and how far each is from it.

    `median` and `mad` are [signals, groups(, steps)] in the signal's unit, `deviation` is
    [signals, memberships(, steps)] without unit; the steps are there if the values had them.
    """

    median: Floats
    mad: Floats
    deviation: Floats


def shapes(values: Floats, members: Integers, offsets: Integers) -> tuple[tuple[int, ...], ...]:
    """The shapes of median, mad and deviation."""
    signals, _, *steps = values.shape
    common = (signals, offsets.size - 1, *steps)
    return common, common, (signals, members.size, *steps)


def check_values(values: Floats) -> None:
    check_floats(values)
    if values.ndim not in (2, 3):
        raise ValueError(f"values must be [signals, gpus] or [signals, gpus, steps], got shape {values.shape}")
    if not values.flags.c_contiguous:
        raise ValueError(f"values must be C-contiguous, got strides {values.strides} for shape {values.shape}")


def check_kinds(members: Integers, offsets: Integers) -> None:
    if members.dtype != INTEGERS[0] or members.ndim != 1:
        raise TypeError(f"members must be int32 [memberships], got {members.dtype} of shape {members.shape}")
    if offsets.dtype not in INTEGERS or offsets.ndim != 1:
        raise TypeError(f"offsets must be int32 or int64 [groups + 1], got {offsets.dtype} of shape {offsets.shape}")


def check_groups(members: Integers, offsets: Integers, gpus: int) -> None:
    if offsets.size == 0 or offsets[0] != 0 or offsets[-1] != members.size:
        ends = f"{offsets[0]} to {offsets[-1]}" if offsets.size else "nothing"
        raise ValueError(f"offsets must run from 0 to the {members.size} memberships, got {ends}")
    falls = offsets[1:] < offsets[:-1]
    if falls.any():
        group = int(falls.argmax())
        raise ValueError(f"group {group} ends at {offsets[group + 1]}, before its start at {offsets[group]}")
    if members.size and not 0 <= int(members.min()) <= int(members.max()) < gpus:
        slot = int(((members < 0) | (members >= gpus)).argmax())
        group = int((offsets <= slot).sum()) - 1
        raise ValueError(f"group {group} names GPU {members[slot]}, but values hold {gpus}")


def floors(floor: float | NDArray[np.float64], signals: int) -> NDArray[np.float64]:
    """The floor of every signal."""
    if isinstance(floor, int | float) and 0 <= floor < np.inf:
        spread = np.empty(signals)
        spread.fill(floor)
        return spread
    if np.shape(floor) not in ((), (signals,)):
        raise ValueError(f"floor must be one number or one per signal [{signals}], got shape {np.shape(floor)}")
    spread = np.empty(signals)
    spread[:] = floor
    if signals and not (spread.min() >= 0 and spread.max() < np.inf):
        wrong = ~((spread >= 0) & (spread < np.inf))
        raise ValueError(f"floor must be finite and not negative, got {spread[wrong][0]}")
    return spread


def check_minimum(minimum: int) -> None:
    if minimum < 1:
        raise ValueError(f"minimum must be at least 1 member, got {minimum}")
