"""All cores of the CPU, for one op at a time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from numba import get_num_threads, set_num_threads

# Numba's own thread pool, its fallback where there is no OpenMP, aborts the process when entered twice.
_one_at_a_time = threading.Lock()


@contextmanager
def cores(most: int) -> Iterator[None]:
    """Up to `most` threads inside: waking a thread for little work costs more than it saves."""
    threads = get_num_threads()
    with _one_at_a_time:
        set_num_threads(max(1, min(threads, most)))
        try:
            yield
        finally:
            set_num_threads(threads)
