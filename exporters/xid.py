"""The XID catalogue: what each code means, what to do, and whether the GPU should get new work.

`xid.csv` has one row per code, with the opinion of each public source beside our own verdict, because they disagree.
NVIDIA: its Xid catalogue. gpud: event level and repair. dcgm: health watch. utkuozdemir: alert tier of
nvidia_gpu_exporter. azure: the health check's list. An empty opinion means that the source does not list the code.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType

# The codes whose counters start at 0, so that `increase()` sees the first event: those that stop a GPU or its job.
WATCHED = (48, 62, 64, 74, 79, 94, 95, 119, 120)

SOURCES = ("nvidia", "gpud", "dcgm", "utkuozdemir", "azure")


@dataclass(frozen=True, slots=True)
class Xid:
    """One code. `schedule`: yes, watch, drain (at leisure), no, no_multi_gpu, no_vgpu or follow_action."""

    code: int
    name: str
    category: str
    action: str
    schedule: str
    applies: str
    opinions: MappingProxyType[str, str]


@cache
def catalogue() -> MappingProxyType[int, Xid]:
    """Every known code."""
    with (files("exporters") / "xid.csv").open() as file:
        rows = [
            Xid(
                int(row["code"]),
                row["name"],
                row["class"],
                row["action"],
                row["schedule"],
                row["applies"],
                MappingProxyType({source: row[source] for source in SOURCES if row[source]}),
            )
            for row in csv.DictReader(file)
        ]
    return MappingProxyType({each.code: each for each in rows})


def look_up(code: int) -> Xid:
    """The code's entry. A code nobody listed is a warning, never healthy."""
    known = catalogue().get(code)
    return known or Xid(code, "Unknown XID", "unknown", "none", "watch", "", MappingProxyType({}))


def message(code: int) -> str:
    """What to call the code; 0 means that there was none."""
    return look_up(code).name if code else "No Error"
