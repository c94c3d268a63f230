"""How a series' largest values are distributed, and what value it exceeds with a given chance."""

import numpy as np

from kernels.arrays import Floats, module_of, version
from kernels.tail_fit import arrays
from kernels.tail_fit.arrays import Tail

__all__ = ["Tail", "tail_fit", "tail_quantile"]


def tail_fit(
    values: Floats,
    start: float | Floats = 0.0,
    *,
    lightest: float = -0.5,
    heaviest: float = 0.5,
    minimum: int = 5,
) -> Tail:
    """Fit a generalised Pareto distribution to every series' excesses over its start.

        difference = sum over pairs of |excess - other excess| / (n * (n - 1))
        shape = 2 - mean / difference, scale = mean * (1 - shape)

    These are the unbiased probability-weighted moments of Hosking and Wallis (Technometrics 29, 1987), shape being
    their -k. They hold for shapes below 0.5, to which the defaults keep. A shape beyond a limit becomes that
    limit and the scale keeps the mean. Excesses that do not differ at all get the lightest shape. Where the largest
    excess lies beyond the end of a fitted distribution of negative shape, the end is moved there, shape = -scale /
    largest (Dupuis and Tsao, Communications in Statistics, Theory and Methods 27, 1998).

    Shapes and units:
        values: float32 or float64 [series, values], C-contiguous; rows of unequal length are filled up with NaN.
        start: one number or one per series, in the values' unit; what is not above it is no excess.
        lightest, heaviest: limits of the shape, -infinity < lightest <= 0 <= heaviest < 1.
        minimum: with fewer excesses shape and scale are NaN.

    NaN and infinite values are absent: they count neither as excesses nor for the share. A start that is
    not finite has no excesses.

    The arithmetic is float64, the result has the dtype of the values and lies where they lie: NumPy arrays are worked
    on by all cores, CuPy arrays on their card.

    Raises TypeError for a wrong dtype and ValueError for a wrong shape, limit or minimum.
    """
    module = module_of(values)
    arrays.check_values(values)
    arrays.check_start(start, len(values))
    arrays.check_limits(lightest, heaviest, minimum)
    starts = module.empty(len(values), np.float64)
    starts[:] = start
    shape, scale, share = (module.empty(len(values), values.dtype) for _ in range(3))
    out = Tail(shape, scale, module.empty(len(values), np.int32), share)
    if len(values):
        version("tail_fit", module).fill(values, starts, lightest, heaviest, minimum, out)
    return out


def tail_quantile(tail: Tail, chance: float | Floats, start: float | Floats = 0.0) -> Floats:
    """The value that each series exceeds with that chance: float64 [series], or as the arguments broadcast.

        value = start + scale * ((share / chance) ** shape - 1) / shape, and start + scale * log(share / chance)
        where the shape is 0

    `start` is what the tail was fitted with. NaN where there is no fit, and where the chance is larger than the
    share above the start: such values are not in the tail.

    Raises ValueError for a chance that is not between 0 and 1.
    """
    chances = np.asarray(chance, np.float64)
    if not ((chances > 0) & (chances <= 1)).all():
        raise ValueError(f"chance must be above 0 and at most 1, got {chance}")
    shape = tail.shape.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = np.log(tail.share / chance)
        reach = np.where(shape == 0, depth, np.expm1(shape * depth) / shape)
        return np.where(depth >= 0, start + tail.scale * reach, np.nan)
