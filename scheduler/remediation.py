"""How far automation may go: what it may take out of service at once, and when it calls a node a black hole. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

#: The failure domain that holds all others.
FLEET = "fleet"


@dataclass(frozen=True, slots=True)
class Policy:
    """What an operator can set of the remediation.

    `fleet_share` and `rack_share`: shares of the GPUs that automation may hold out of service at once, but always
    `floor` GPUs, so that a small fleet can lose a node. `canary_seconds`: how long a GPU has to work before it is
    trusted again; 0 trusts it at once. `dry_run`: everything is decided and told, nothing is done.
    """

    fleet_share: float = 0.25
    rack_share: float = 0.5
    floor: int = 8
    canary_seconds: float = 45.0
    retry_seconds: float = 60.0
    longest_retry_seconds: float = 3600.0
    dry_run: bool = False

    def retry_after(self, strikes: int) -> float:
        """Seconds until the next canary after so many that failed: doubled with each, up to the longest."""
        return float(min(self.longest_retry_seconds, self.retry_seconds * 2.0 ** max(0, strikes - 1)))


@dataclass(frozen=True, slots=True)
class Domain:
    """GPUs of a failure domain (the fleet, a rack), and how many of them automation holds."""

    name: str
    gpus: int
    held: int
    bound: int

    @property
    def open(self) -> bool:
        """Whether the breaker is open: not one GPU more may be taken."""
        return self.held >= self.bound


@dataclass(slots=True)
class Breaker:
    """The circuit breaker: counts what automation holds, and says no before it would hold too much.

    A broken rule or a detector gone mad must not take a fleet out of service. `racks`: rack → (GPUs, held), ""
    for nodes without one.
    """

    policy: Policy
    racks: dict[str, tuple[int, int]] = field(default_factory=dict)

    def domains(self) -> list[Domain]:
        """The fleet first, then its racks; nodes without a rack belong to the fleet alone."""
        total, held = (sum(counts) for counts in zip(*self.racks.values(), strict=True)) if self.racks else (0, 0)
        found = [Domain(FLEET, total, held, self._bound(total, self.policy.fleet_share))]
        for rack, (gpus, out) in sorted(self.racks.items()):
            if rack:
                found.append(Domain(rack, gpus, out, self._bound(gpus, self.policy.rack_share)))
        return found

    def admit(self, rack: str | None, gpus: int) -> str | None:
        """Count `gpus` more as held; or, changing nothing, why not."""
        for domain in self.domains():
            if domain.name in (FLEET, rack) and domain.held + gpus > domain.bound:
                where = FLEET if domain.name == FLEET else f"rack {domain.name}"
                return f"circuit breaker: {domain.held} of {domain.gpus} GPUs of the {where} are held already"
        total, held = self.racks.get(rack or "", (0, 0))
        self.racks[rack or ""] = (total, held + gpus)
        return None

    def _bound(self, gpus: int, share: float) -> int:
        return max(self.policy.floor, math.floor(gpus * share))


#: A failure counts as fast within so many seconds of the start ...
FAST_SECONDS = 10.0
#: ... and is remembered for so long; a hold for it lasts as long.
FAST_WINDOW_SECONDS = 600.0
_FEWEST_JOBS = 3
_CHANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Record:
    """Attempts that ended on a node within the window, and distinct jobs that failed there right after their start."""

    ended: int
    fast_failed: int


def black_holes(records: Mapping[str, Record]) -> Sequence[str]:
    """Nodes on which jobs fail at once far more often than elsewhere: each would eat the whole queue.

    A job that fails by its own fault does so anywhere, so a node is held against the rate of all others: the chance
    of as many fast failures at that rate (binomial; rule of succession for the rate) must be below 1e-4.
    """
    ended = sum(record.ended for record in records.values())
    failed = sum(record.fast_failed for record in records.values())
    return [
        name
        for name, record in records.items()
        if record.fast_failed >= _FEWEST_JOBS
        and _tail(
            record.fast_failed,
            record.ended,
            (failed - record.fast_failed + 1) / (ended - record.ended + 2),
        )
        < _CHANCE
    ]


def _tail(successes: int, trials: int, chance: float) -> float:
    """P(X >= successes) of a binomial variable."""
    return sum(math.comb(trials, k) * chance**k * (1 - chance) ** (trials - k) for k in range(successes, trials + 1))
