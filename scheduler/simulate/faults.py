"""When servers failed, from the InfiniteHBD trace (400 servers, 348 days), and what a detector would have said."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from .trace import TraceError

SERVERS = 400
GPUS = 8
DAY = 24.0
#: Faults of one GPU; the others are of the whole server.
OF_ONE_GPU = "GPU"


class _Kind(BaseModel):
    level: str = Field(alias="Level")
    family: str = Field(alias="Class")


class _Event(BaseModel):
    node_id: str
    event_time: float = Field(ge=0, description="days")
    event_type: Literal["fault_start", "fault_end"]
    fault_type: _Kind


@dataclass(frozen=True, slots=True)
class Fault:
    """Times in hours."""

    server: int
    start: float
    end: float
    one_gpu: bool


@dataclass(frozen=True, slots=True)
class Detector:
    """What is assumed of the detector.

    A share `recall` of the faults is announced `lead_hours` before, by a score that climbs in steps. A
    healthy GPU's score passes 1 `false_alarms` times in 1,000 GPU-hours, and lies in doubt (0.5 to 1) ten
    times as often, for an hour each.
    """

    recall: float = 0.5
    lead_hours: float = 24.0
    false_alarms: float = 0.1


#: The climb of an announced fault's score, at these shares of the lead time.
CLIMB = ((0.0, 0.4), (0.25, 0.65), (0.5, 0.9), (0.75, 1.2))
DOUBTS_PER_ALARM = 10
FALSE_HOURS = 1.0


@dataclass(frozen=True, slots=True)
class Score:
    """From `at` (hours) on, these GPUs of a server have this score."""

    at: float
    server: int
    gpus: tuple[int, ...]
    score: float


def read(path: Path) -> list[Fault]:
    """The trace's faults; a server that fails while it is down stays down. Raises TraceError."""
    try:
        events = TypeAdapter(list[_Event]).validate_json(path.read_bytes())
    except OSError as error:
        raise TraceError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise TraceError(f"{path} is no fault trace: {error.errors()[0]['msg']}") from error
    servers: dict[str, int] = {}
    begun: dict[int, list[_Event]] = {}
    found: list[Fault] = []
    for event in sorted(events, key=lambda event: event.event_time):
        server = servers.setdefault(event.node_id, len(servers))
        if event.event_type == "fault_start":
            begun.setdefault(server, []).append(event)
        elif begun.get(server):
            start = begun[server].pop(0)
            one_gpu = start.fault_type.family == OF_ONE_GPU
            found.append(Fault(server, start.event_time * DAY, event.event_time * DAY, one_gpu))
    if len(servers) > SERVERS:
        raise TraceError(f"{path} has {len(servers)} servers; it is taken to be of {SERVERS}")
    return sorted(found, key=lambda fault: fault.start)


def scores(faults: list[Fault], hours: float, detector: Detector, generator: np.random.Generator) -> Iterator[Score]:
    """All changes of the scores, in no order. They end at 0 when the alarm or the fault does."""
    for fault in faults:
        affected = (int(generator.integers(GPUS)),) if fault.one_gpu else tuple(range(GPUS))
        if generator.random() < detector.recall:
            for share, score in CLIMB:
                at = fault.start - (1 - share) * detector.lead_hours
                yield Score(max(0.0, at), fault.server, affected, score)
        yield Score(fault.end, fault.server, tuple(range(GPUS)), 0.0)
    rate = detector.false_alarms * (1 + DOUBTS_PER_ALARM) / 1000
    for _ in range(int(generator.poisson(rate * SERVERS * GPUS * hours))):
        at, gpu = generator.uniform(0, hours), int(generator.integers(SERVERS * GPUS))
        alarm = generator.random() * (1 + DOUBTS_PER_ALARM) < 1
        score = 1.2 if alarm else float(generator.uniform(0.5, 1.0))
        yield Score(at, gpu // GPUS, (gpu % GPUS,), score)
        yield Score(at + FALSE_HOURS, gpu // GPUS, (gpu % GPUS,), 0.0)
