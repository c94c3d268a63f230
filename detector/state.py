"""What the detector knows at one moment: built by a tick, read by a scrape, never changed in between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from detector.findings import Findings


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One tick's findings.

    at: Unix seconds of the step that was judged. groups: (type, name) → score; group_causes: of those that score 1.
    basis: how many GPUs are judged by `model`, `peers` or only by `rules`. coverage: share of the known readings that
    the newest step holds.
    """

    at: float
    verdicts: Findings
    groups: Mapping[tuple[str, str], float]
    group_causes: Mapping[tuple[str, str], str]
    basis: Mapping[str, int]
    coverage: float
    version: str
    trained_at: float | None

    @classmethod
    def empty(cls, at: float) -> Snapshot:
        """Prometheus answers, and knows no GPU."""
        return cls(at, Findings.none(), {}, {}, {"model": 0, "peers": 0, "rules": 0}, 0.0, "none", None)


@dataclass(slots=True)
class Counts:
    """What adds up over the life of the process."""

    ticks: dict[str, int] = field(default_factory=lambda: {"ok": 0, "failed": 0})
    warnings: int = 0
    refusals: Mapping[str, int] = field(default_factory=dict)  # by query
    fed: int = 0  # queries of the last tick
    seconds: Mapping[str, float] = field(default_factory=dict)
