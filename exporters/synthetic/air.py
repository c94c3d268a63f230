"""The air each rack breathes in: a daily cycle shared by the hall, and a slow drift of its own."""

import numpy as np

from exporters.synthetic.arrays import Floats

_DAY_SECONDS = 86_400.0
_DRIFT_SECONDS = 1_800.0
_DRIFT_KELVIN = 0.5


class Air:
    """Inlet temperature per rack; racks appear as nodes are placed in them."""

    def __init__(self, mean_celsius: float = 24.5, swing_kelvin: float = 1.2) -> None:
        self.mean_celsius = mean_celsius
        self.swing_kelvin = swing_kelvin
        self._drift: Floats = np.zeros(0)
        self._offset: Floats = np.zeros(0)

    def ensure(self, racks: int, rng: np.random.Generator) -> None:
        """Makes room for racks up to this many."""
        more = racks - len(self._drift)
        if more > 0:
            self._drift = np.append(self._drift, rng.standard_normal(more))
            self._offset = np.append(self._offset, rng.uniform(-0.8, 0.8, more))

    def step(self, seconds: float, rng: np.random.Generator) -> None:
        """Lets the drift go on."""
        keep = np.exp(-seconds / _DRIFT_SECONDS)
        noise = rng.standard_normal(len(self._drift))
        self._drift = self._drift * keep + np.sqrt(1 - keep * keep) * noise

    def inlet_celsius(self, now_seconds: float) -> Floats:
        """One value per rack; warmest in the afternoon of a clock that starts at midnight."""
        cycle = -np.cos(2 * np.pi * (now_seconds / _DAY_SECONDS - 0.125))
        inlet: Floats = self.mean_celsius + self.swing_kelvin * cycle + self._offset + _DRIFT_KELVIN * self._drift
        return inlet
