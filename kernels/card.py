# numba.cuda builds its names at import, out of mypy's sight.
# mypy: disable-error-code="attr-defined, no-untyped-call"
"""The way to the card and back."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import cuda
from numpy.typing import NDArray


def stream() -> object:
    """CuPy's current stream, so that a kernel runs in turn with the work around it."""
    cupy = sys.modules.get("cupy")
    return cuda.external_stream(cupy.cuda.get_current_stream().ptr) if cupy is not None else 0


def on_card(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """An array that lies there stays where it is; one of NumPy's is copied."""
    return array if hasattr(array, "__cuda_array_interface__") else cuda.to_device(array)


@dataclass(frozen=True, slots=True)
class Results:
    """Arrays that a kernel writes; NumPy's travel back when it is done."""

    here: Sequence[NDArray[np.generic]]
    there: Sequence[NDArray[np.generic]]

    @classmethod
    def of(cls, *arrays: NDArray[np.generic]) -> "Results":
        return cls(arrays, [on_card(array) for array in arrays])

    def fetch(self) -> None:
        for there, here in zip(self.there, self.here, strict=True):
            if there is not here:
                there.copy_to_host(here)
