"""The fleet in real time: advanced by a background task, so that time passes also when nobody scrapes."""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from exporters import dcgm, events, exposition, guard, info
from exporters.discovery import Place
from exporters.reading import GpuReading
from exporters.service import NodeDownError, NodeHangsError, UnknownNodeError
from exporters.synthetic.chance import Upkeep
from exporters.synthetic.chaos import Chaos, Profile
from exporters.synthetic.fleet import Fleet

_LONGEST_STEP_SECONDS = 5.0
_LONGEST_GAP_SECONDS = 60.0
_STALLED_SECONDS = 15.0


class SyntheticSource:
    """A fleet and its clock. `speed` is fleet seconds per second."""

    def __init__(
        self,
        fleet: Fleet,
        speed: float = 1.0,
        interval_seconds: float = 1.0,
        names: dcgm.Names = "legacy",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.fleet = fleet
        self.speed = speed
        self.names = names
        self.chaos = Chaos(fleet)
        self.upkeep: Upkeep | None = None
        self.started = datetime.now(UTC)
        self._interval = interval_seconds
        self._monotonic = monotonic
        self._last = monotonic()
        self._step_seconds = 0.0
        self._written: dict[tuple[str, str], str] = {}  # (node, collector) → its part of the page, until the next step
        self._read: tuple[str, list[GpuReading]] = ("", [])
        fleet.step(self._interval * speed)
        self._offset = fleet.seconds

    def begin(self, *, chaos: bool, upkeep: bool) -> None:
        """Turns on what is off by default: random faults at the demo's rates, and the upkeep that is no fault."""
        self.chaos.profile = Profile() if chaos else None
        self.upkeep = Upkeep(self.fleet, np.random.default_rng([self.fleet.seed, 3])) if upkeep else None

    def at(self, fleet_seconds: float) -> datetime:
        """The time of day at which the fleet's clock showed this."""
        return self.started + timedelta(seconds=(fleet_seconds - self._offset) / self.speed)

    def advance(self) -> None:
        """Catches up with the clock; a gap (the machine slept) is skipped, not simulated."""
        now = self._monotonic()
        gap, self._last = now - self._last, now
        self.started += timedelta(seconds=max(gap - _LONGEST_GAP_SECONDS, 0.0))
        due = min(gap, _LONGEST_GAP_SECONDS) * self.speed
        count = math.ceil(due / _LONGEST_STEP_SECONDS)
        began = time.perf_counter()
        for _ in range(count):
            self.chaos.step(due / count)
            if self.upkeep is not None:
                self.upkeep.step(due / count)
            self.fleet.step(due / count)
        self._step_seconds = time.perf_counter() - began
        self.changed()

    def changed(self) -> None:
        """Forgets what was read and written before."""
        self._written.clear()
        self._read = ("", [])

    async def run(self) -> None:
        """Advances the fleet until cancelled."""
        while True:
            await asyncio.sleep(self._interval)
            self.advance()

    def places(self) -> Sequence[Place]:
        return [node.place for node in self.fleet.nodes.values()]

    def page(self, node: str) -> str:
        if node not in self.fleet.nodes:
            raise UnknownNodeError(node)
        if self.fleet.is_down(node):
            raise NodeDownError(f"node {node} is down")
        if not self.fleet.hears(node):
            raise NodeHangsError(f"node {node} does not answer")
        return guard.collect(
            {
                "dcgm": lambda: self._once(node, "dcgm", self._dcgm),
                "events": lambda: self._once(node, "events", self._events),
                "info": lambda: self._once(node, "info", self._info),
                "age": lambda: self._ages(node),
            }
        )

    def about(self) -> str:
        return exposition.family(
            "stethos_exporter_nodes",
            "gauge",
            "Nodes this exporter speaks for.",
            [("", float(len(self.fleet.nodes)))],
        ) + exposition.family(
            "stethos_exporter_step_duration_seconds",
            "gauge",
            "How long the last advance of the fleet took.",
            [("", self._step_seconds)],
        )

    def unready(self) -> str | None:
        age = self._monotonic() - self._last
        return None if age < _STALLED_SECONDS else f"the fleet has not moved for {age:.0f} s"

    def _once(self, node: str, collector: str, write: Callable[[str], str]) -> str:
        if (node, collector) not in self._written:
            self._written[node, collector] = write(node)
        return self._written[node, collector]

    def _readings(self, node: str) -> list[GpuReading]:
        # Of one node at a time: its collectors run one after the other, and thousands of nodes are not kept.
        if self._read[0] != node:
            self._read = (node, self.fleet.readings(node))
        return self._read[1]

    def _dcgm(self, node: str) -> str:
        return dcgm.expose(self._readings(node), node, self.names)

    def _events(self, node: str) -> str:
        seen = self.fleet.xids.get(node, {})
        times = {key: events.Seen(each.count, self.at(each.last_seconds).timestamp()) for key, each in seen.items()}
        return events.clocks(self._readings(node)) + events.xids(self.fleet.node(node).gpus, times)

    def _info(self, node: str) -> str:
        return info.expose(self._readings(node))

    def _ages(self, node: str) -> str:
        age = self._monotonic() - self._last + self.fleet.age_seconds(node) / self.speed
        return guard.ages(dict.fromkeys(self.fleet.heard(node), age))
