"""The CUDA version against the reference, in a process of its own: the simulator is chosen at import.

`NUMBA_ENABLE_CUDASIM=1 python -m tests.kernels.on_card` simulates, without the variable it needs a card.
"""

import os

import numpy as np

from kernels.group_deviation import cuda
from tests.kernels.cases import cases, check, large


def main() -> None:
    if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
        cuda.THREADS = 16  # every simulated thread is a real one
    tried = [*cases(np.float32), *cases(np.float64), large(np.float32)]
    for case in tried:
        check(cuda.fill, case)
    print(f"{len(tried)} cases equal the reference")  # noqa: T201


if __name__ == "__main__":
    main()
