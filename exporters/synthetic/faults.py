"""What can go wrong, how hard, and since when. What it does to the physics is in `impairment.py`."""

from dataclasses import dataclass
from typing import Literal

Onset = Literal["step", "creeping"]
Part = Literal["gpu", "node", "rack"]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault. `weight` is how often it comes among all; `shows_idle`: also without load."""

    part: Part
    weight: float
    shows_idle: bool = False


# Weights: events in 348 days of 400 GPU servers (InfiniteHBD trace, SIGCOMM 2025: 60 double-bit errors, 45 devices lost
# or unknown, 40 links down, 33 fans, 26 power supplies, 25 PCIe widths, 9 time-outs of nvidia-smi, 97 failed stress
# tests). The stress tests are shared out among what they would find; what no trace counts has a small one.
KINDS: dict[str, Kind] = {
    "fan_failure": Kind("gpu", 33, shows_idle=True),
    "thermal_paste": Kind("gpu", 18, shows_idle=True),
    "hot_inlet": Kind("rack", 5, shows_idle=True),
    "power_brake": Kind("node", 13),
    "power_cap": Kind("gpu", 16, shows_idle=True),
    "clock_stuck": Kind("gpu", 16),
    "straggler": Kind("gpu", 19),
    "efficiency_loss": Kind("gpu", 16),
    "ecc_creep": Kind("gpu", 10, shows_idle=True),
    "ecc_uncorrectable": Kind("gpu", 60, shows_idle=True),
    "row_remap": Kind("gpu", 10, shows_idle=True),
    "nvlink_flap": Kind("gpu", 40),
    "pcie_width": Kind("gpu", 25),
    "off_the_bus": Kind("gpu", 45, shows_idle=True),
    "hang": Kind("gpu", 12, shows_idle=True),
    "memory_leak": Kind("gpu", 10),
    "sensor_stuck": Kind("gpu", 10),
    "node_crash": Kind("node", 13, shows_idle=True),
    "exporter_hang": Kind("node", 9, shows_idle=True),
}

# An exporter that hangs this hard answers nobody; one that hangs less keeps telling its last readings.
MUTE_SEVERITY = 0.5


@dataclass(slots=True)
class Fault:
    """One fault. `gpu` is None when it is the node's; `node` is None too when it is the rack's.

    Times are seconds of the fleet's clock.
    """

    id: str
    kind: str
    node: str | None
    gpu: int | None
    rack: str | None
    severity: float
    onset: Onset
    ramp_seconds: float
    start_seconds: float
    recovery_seconds: float | None = None  # after which it is mended by itself
    end_seconds: float | None = None

    def strength(self, now_seconds: float) -> float:
        """The severity in force: at once, or growing over the ramp."""
        if self.onset == "step":
            return self.severity
        return self.severity * min((now_seconds - self.start_seconds) / self.ramp_seconds, 1.0)

    def has_peaked(self, now_seconds: float) -> bool:
        """Whether the ramp is over; what is all or nothing happens then."""
        return self.onset == "step" or now_seconds >= self.start_seconds + self.ramp_seconds

    def has_recovered(self, now_seconds: float) -> bool:
        """Whether its time is over."""
        return self.recovery_seconds is not None and now_seconds >= self.start_seconds + self.recovery_seconds
