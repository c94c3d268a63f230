"""The detector's arithmetic: arrays in, arrays out, the same call for NumPy and for CuPy."""

from kernels.change_scan import Changes, Standing, change_scan
from kernels.group_deviation import Deviation, peer_deviation
from kernels.median_mad import History, median_mad
from kernels.nearest_peers import Peers, nearest_peers
from kernels.tail_fit import Tail, tail_fit, tail_quantile
from kernels.window_features import Features, Ring, window_features, window_ring, window_step

__all__ = [
    "Changes",
    "Deviation",
    "Features",
    "History",
    "Peers",
    "Ring",
    "Standing",
    "Tail",
    "change_scan",
    "median_mad",
    "nearest_peers",
    "peer_deviation",
    "tail_fit",
    "tail_quantile",
    "window_features",
    "window_ring",
    "window_step",
]
