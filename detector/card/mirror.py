"""The window's copy on the device: only columns that are new, or have changed, travel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detector.card.device import placed
from detector.signals import Signal
from detector.telemetry import IDLE, Floats, Telemetry

_NOTHING = -1


class Mirror:
    """Some signals of the steps of one fleet that were last asked for, told apart by their stamps; see Telemetry.

    Its slots are written in any order: of a step that is no longer asked for, the slot is free.
    """

    def __init__(self, signals: Sequence[Signal], device: torch.device) -> None:
        self.uploaded = 0  # bytes, by the last call
        self._signals = tuple(signal.name for signal in signals)
        self._device = device
        self._stamps = np.zeros(0, np.int64)
        self._values = torch.empty(0)
        self._job = torch.empty(0)

    def of(self, telemetry: Telemetry) -> tuple[Tensor, Tensor]:
        """Its values [signals, gpus, steps], NaN for a signal that it lacks, and its jobs [gpus, steps]."""
        every = np.arange(len(telemetry.timestamps))
        if telemetry.stamps is None:
            return self._put(*self._columns(telemetry, every))
        if len(every) > len(self._stamps):
            self._begin(telemetry)
        order = np.argsort(self._stamps)
        slots = order[np.searchsorted(self._stamps, telemetry.stamps, sorter=order).clip(max=len(order) - 1)]
        missing = np.flatnonzero(self._stamps[slots] != telemetry.stamps)
        kept = np.delete(slots, missing)
        slots[missing] = np.setdiff1d(np.arange(len(self._stamps)), kept)[: len(missing)]
        values, job = self._put(*self._columns(telemetry, missing))
        there = placed(slots[missing], self._device)
        self._values[..., there], self._job[:, there] = values, job
        self._stamps[slots[missing]] = telemetry.stamps[missing]
        asked = placed(slots, self._device)
        return self._values[..., asked], self._job[:, asked]

    def _begin(self, telemetry: Telemetry) -> None:
        gpus, steps = telemetry.job.shape
        self._stamps = np.full(steps, _NOTHING)
        self._values = torch.full((len(self._signals), gpus, steps), torch.nan, device=self._device)
        self._job = torch.full((gpus, steps), IDLE, dtype=torch.int32, device=self._device)

    def _columns(self, telemetry: Telemetry, columns: NDArray[np.int64]) -> tuple[Floats, NDArray[np.int32]]:
        names = [signal.name for signal in telemetry.signals]
        values = np.full((len(self._signals), len(telemetry.gpus), len(columns)), np.nan, np.float32)
        for row, name in enumerate(self._signals):
            if name in names:
                values[row] = telemetry.values[names.index(name)][:, columns]
        return values, telemetry.job[:, columns]

    def _put(self, values: Floats, job: NDArray[np.int32]) -> tuple[Tensor, Tensor]:
        self.uploaded = values.nbytes + job.nbytes
        return placed(values, self._device), placed(job, self._device)
