"""The newest residuals, kept from tick to tick."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detector.residuals import Residuals


class Trail:
    """Residuals of the newest steps, always as many: arrays twice as long and written left to right, as a Window's."""

    def __init__(self, residuals: Residuals) -> None:
        self._length = self._end = residuals.own.shape[2]
        self._own, self._shared = (
            np.concatenate([each, np.empty_like(each)], axis=2) for each in (residuals.own, residuals.shared)
        )

    @property
    def residuals(self) -> Residuals:
        """A view, valid until the next `add`."""
        kept = slice(self._end - self._length, self._end)
        return Residuals(self._own[..., kept], self._shared[..., kept])

    def add(self, newer: Residuals) -> None:
        """Let newer steps, fewer than there are, take the place of the oldest."""
        new = newer.own.shape[2]
        whole = self._own, self._shared
        if self._end + new > 2 * self._length:
            for array in whole:
                array[..., : self._length] = array[..., self._end - self._length : self._end].copy()
            self._end = self._length
        for array, each in zip(whole, (newer.own, newer.shared), strict=True):
            array[..., self._end : self._end + new] = each
        self._end += new

    def forget(self, rows: NDArray[np.int64]) -> None:
        """These GPUs have no past."""
        self._own[:, rows], self._shared[:, rows] = np.nan, np.nan
