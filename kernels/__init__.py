"""The detector's arithmetic: arrays in, arrays out, the same call for NumPy and for CuPy."""

from kernels.group_deviation import Deviation, peer_deviation

__all__ = ["Deviation", "peer_deviation"]
