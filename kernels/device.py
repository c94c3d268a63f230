"""Where the benchmark's arrays lie, and how fast that place copies and multiplies."""

import os
import platform
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import click
import numpy as np
from numpy.typing import NDArray

COPY_BYTES = 2**28  # far beyond any cache
MATRIX = 2048  # rows and columns: large enough for the multiplication to be all arithmetic
REPEATS = 7

Array = TypeVar("Array", bound=NDArray[np.generic])


class Cpu:
    """NumPy arrays and all cores."""

    kind = "cpu"

    def __init__(self) -> None:
        info = Path("/proc/cpuinfo")
        lines = info.read_text().splitlines() if info.exists() else []
        models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        self.name = f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores"

    def place(self, array: Array) -> Array:
        """The array where this device works on it."""
        return array

    def fetch(self, array: Array) -> Array:
        """The array back as NumPy's."""
        return array

    def wait(self) -> None:
        """Until everything started has ended."""

    def bandwidth(self) -> float:
        """Bytes read and written per second when every core copies."""
        cores = os.cpu_count() or 1
        source = np.ones((cores, COPY_BYTES // 4 // cores), np.float32)
        target = np.zeros_like(source)
        with ThreadPoolExecutor(cores) as pool:
            return 2 * source.nbytes / self.least(lambda: list(pool.map(np.copyto, target, source)))

    def rate(self) -> float:
        """Float32 operations per second in the BLAS's matrix product."""
        left = self.place(np.ones((MATRIX, MATRIX), np.float32))
        return 2 * MATRIX**3 / self.least(lambda: left @ left)

    def least(self, run: Callable[[], object]) -> float:
        """Seconds of the fastest of several runs."""
        taken = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            run()
            self.wait()
            taken.append(time.perf_counter() - start)
        return min(taken)


class Cuda(Cpu):
    """CuPy arrays and the first card."""

    kind = "cuda"

    def __init__(self) -> None:
        try:
            import cupy
        except ImportError as error:
            raise click.ClickException("--device cuda needs CuPy: install the gpu extra") from error
        self.cupy = cupy
        try:
            self.name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
        except cupy.cuda.runtime.CUDARuntimeError as error:
            raise click.ClickException(f"--device cuda needs a card: {error}") from error

    def place(self, array: Array) -> Array:
        return self.cupy.asarray(array)  # type: ignore[no-any-return]

    def fetch(self, array: Array) -> Array:
        return self.cupy.asnumpy(array)  # type: ignore[no-any-return]

    def wait(self) -> None:
        self.cupy.cuda.Device().synchronize()

    def bandwidth(self) -> float:
        source = self.cupy.ones(COPY_BYTES // 4, np.float32)
        target = self.cupy.zeros_like(source)
        return float(2 * source.nbytes / self.least(lambda: self.cupy.copyto(target, source)))
