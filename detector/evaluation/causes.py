"""Which cause is a right answer for which fault of the synthetic fleet.

Written from what the faults do to a GPU, before any score was looked at: a fault that holds the clock down may be told
by the clock or by the power that goes with it. A kind that is not here has no cause that the detector could name.
"""

from __future__ import annotations

_COOLING = frozenset({"cooling"})
_MEMORY = frozenset({"memory_errors"})
_LINKS = frozenset({"interconnect"})
_SILENT = frozenset({"missing"})

RIGHT: dict[str, frozenset[str]] = {
    "fan_failure": _COOLING,
    "thermal_paste": _COOLING,
    "hot_inlet": _COOLING,
    "power_brake": frozenset({"clocks", "power_limit", "power_loss"}),
    "power_cap": frozenset({"power_limit", "clocks", "power_loss"}),
    "clock_stuck": frozenset({"clocks", "power_loss"}),
    "straggler": frozenset({"straggling"}),
    "efficiency_loss": frozenset({"inefficiency"}),
    "ecc_creep": _MEMORY,
    "ecc_uncorrectable": _MEMORY,
    "row_remap": _MEMORY,
    "nvlink_flap": _LINKS,
    "pcie_width": _LINKS,
    "off_the_bus": _SILENT,
    "hang": frozenset({"busy_without_work", "straggling", "power_loss"}),
    "memory_leak": frozenset({"memory_growth"}),
    "sensor_stuck": frozenset({"sensor"}),
    "node_crash": _SILENT,
    "exporter_hang": _SILENT | {"sensor"},
}
GROUP_FAULTS = frozenset({"hot_inlet", "power_brake"})  # of a rack or node that goes on reporting
SILENT_FAULTS = frozenset({"node_crash", "exporter_hang"})  # of a node that does not, or not for long
