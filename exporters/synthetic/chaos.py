"""Random faults in the running fleet, at a rate for each node, mended by themselves after a while."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from exporters.synthetic import chance
from exporters.synthetic.faults import KINDS
from exporters.synthetic.fleet import Fleet
from exporters.synthetic.parts import ConflictError

# The rates of the demo, in percent per minute: the first node has the first one, and so on, again and again.
DEMO_PERCENT_PER_MINUTE = (5.0, 8.0, 12.0, 6.0, 10.0, 7.0, 9.0, 11.0)
RECOVERY_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Profile:
    """What chaos does. A node that `nodes` names has its own rate; the others take turns with `rates`."""

    rates_percent_per_minute: Sequence[float] = DEMO_PERCENT_PER_MINUTE
    nodes: Mapping[str, float] = field(default_factory=dict)
    recovery_seconds: float = RECOVERY_SECONDS
    kinds: Sequence[str] = tuple(KINDS)
    severity: tuple[float, float] = (0.5, 1.0)


class Chaos:
    """Off until it gets a profile. Draws from its own generator, so that the fleet without it is the same fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self.profile: Profile | None = None
        self._fleet = fleet
        self._rng = np.random.default_rng([fleet.seed, 2])

    def step(self, seconds: float) -> None:
        """Lets each node have its chance of a fault during `seconds`."""
        if self.profile is not None:
            for node, percent in self.rates(self.profile).items():
                if self._rng.random() < 1 - (1 - percent / 100) ** (seconds / 60):
                    self._break(self.profile, node)

    def rates(self, profile: Profile) -> dict[str, float]:
        """The rate of every node, in percent per minute."""
        turns = profile.rates_percent_per_minute
        return {
            node: profile.nodes.get(node, turns[index % len(turns)] if turns else 0.0)
            for index, node in enumerate(self._fleet.nodes)
        }

    def _break(self, profile: Profile, node: str) -> None:
        weights = np.array([KINDS[kind].weight for kind in profile.kinds])
        kind = str(self._rng.choice(profile.kinds, p=weights / weights.sum()))
        severity = round(float(self._rng.uniform(*profile.severity)), 3)
        part = chance.target(self._fleet, kind, self._rng, among=node)
        if part is None:
            return
        name, gpu, rack = part
        with suppress(ConflictError):  # broken like this already
            self._fleet.add_fault(kind, name, gpu, severity, rack=rack, recovery_seconds=profile.recovery_seconds)
