"""How many CPU threads the model may use."""

import numba
import torch


def limit(threads: int) -> None:
    """At most so many; the kernels see to theirs themselves.

    Numba's threads are started first: when that happens, OpenMP's number is set for the calling thread to all there
    are, and torch goes by that, whatever it was told before.
    """
    numba.set_num_threads(numba.get_num_threads())
    torch.set_num_threads(threads)
