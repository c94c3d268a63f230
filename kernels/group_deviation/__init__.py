"""How far each GPU is from its peers, by median and median absolute deviation."""

import numpy as np
from numpy.typing import NDArray

from kernels.arrays import INTEGERS, Floats, Integers, check_results, module_of, version
from kernels.group_deviation import arrays
from kernels.group_deviation.arrays import Deviation

__all__ = ["Deviation", "peer_deviation"]


def peer_deviation(
    values: Floats,
    members: Integers,
    offsets: Integers,
    *,
    floor: float | NDArray[np.float64] = 0.0,
    minimum: int = 3,
    out: Deviation | None = None,
) -> Deviation:
    """Robust deviation of every GPU from the groups it is in.

        deviation = (value - median) / (1.4826 * max(mad, floor))

    with the median and the median absolute deviation (mad) of the group's members, per signal
    and step; the median of an even count is the mean of the two middle values. 1.4826 makes the
    mad a standard deviation where the values are normal (Rousseeuw and Croux, JASA 88, 1993).

    Shapes and units:
        values: float32 or float64 [signals, gpus] or [signals, gpus, steps], C-contiguous.
        members: int32 [memberships], the GPUs of one group after the other; a GPU may be in several.
        offsets: int32 or int64 [groups + 1]; group i is members[offsets[i]:offsets[i + 1]].
        floor: the least spread to divide by, in the signal's unit (its sensor's resolution), one
            number or one per signal.
        minimum: groups with fewer present members have no opinion: NaN throughout.
        out: arrays to write into, of the result's shapes and the values' dtype.

    NaN is an absent value: it does not count among the members and its deviation is NaN. An infinite
    value does not count either, and its deviation is that infinity. With neither spread nor floor,
    a value at the median deviates by 0 and any other by plus or minus infinity.

    The arithmetic is float64, the result has the dtype of the values and lies where they lie: NumPy
    arrays are worked on by all cores, CuPy arrays on their card.

    Raises TypeError for a wrong dtype and ValueError for a wrong shape, index, floor or minimum.
    """
    module = module_of(values)
    arrays.check_values(values)
    members, offsets = module.ascontiguousarray(members), module.ascontiguousarray(offsets)
    arrays.check_kinds(members, offsets)
    if module is not np or not version("group_deviation", module).sound(members, offsets, values.shape[1]):
        arrays.check_groups(members, offsets, values.shape[1])
    floors = arrays.floors(floor, values.shape[0])
    arrays.check_minimum(minimum)
    expected = arrays.shapes(values, members, offsets)
    if out is None:
        out = Deviation(*(module.empty(shape, dtype=values.dtype) for shape in expected))
    else:
        check_results(out, expected, values)

    signals, gpus, *steps = values.shape
    if values.size:
        version("group_deviation", module).fill(
            values.reshape(signals, gpus, steps[0] if steps else 1),
            members,
            offsets if offsets.dtype == INTEGERS[1] else offsets.astype(np.int64),
            floors,
            minimum,
            out,
        )
    else:
        out.median.fill(np.nan)
        out.mad.fill(np.nan)
    return out
