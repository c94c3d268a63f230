"""What the newest steps said, kept from tick to tick."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detector.telemetry import Floats


class Trail:
    """[rows, gpus, steps], always as many steps: an array twice as long and written left to right, as a Window's."""

    def __init__(self, values: Floats) -> None:
        self._length = self._end = values.shape[2]
        self._array = np.concatenate([values, np.empty_like(values)], axis=2)

    @property
    def values(self) -> Floats:
        """A view, valid until the next `add`."""
        return self._array[..., self._end - self._length : self._end]

    def add(self, newer: Floats) -> None:
        """Let newer steps, fewer than there are, take the place of the oldest."""
        new = newer.shape[2]
        if self._end + new > 2 * self._length:
            self._array[..., : self._length] = self.values.copy()
            self._end = self._length
        self._array[..., self._end : self._end + new] = newer
        self._end += new

    def forget(self, gpus: NDArray[np.int64]) -> None:
        """These have no past."""
        self._array[:, gpus] = np.nan

    def of(self, rows: NDArray[np.int64]) -> Trail:
        """The same of other GPUs, by their row here; -1 for who is new."""
        return Trail(np.where(rows[:, None] >= 0, self.values[:, rows], np.float32(np.nan)))
