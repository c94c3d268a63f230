"""The signals that the detector reads, from signals.yml."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

DEFAULT = Path(__file__).with_name("signals.yml")

Direction = Literal["high", "low", "both"]
Follows = Literal["job", "effort"] | None
SENSOR = "sensor"  # the cause of a reading that stays the same


class SignalsError(ValueError):
    """The signals file is not usable; the message names the file and the entry."""


class _Cause(BaseModel):
    model_config = ConfigDict(extra="forbid")

    high: str | None = None
    low: str | None = None


@dataclass(frozen=True, slots=True)
class Alarm:
    """A rule beside the model: what reading says by itself that a GPU is broken; with no condition, one that grows."""

    cause: str
    above: float | None = None
    below: float | None = None
    codes: tuple[int, ...] = ()


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")

    query: str
    name: str | None = None
    expand: str | None = None
    unit: str = ""
    kind: Literal["gauge", "counter"] = "gauge"
    direction: Direction = "both"
    together: Direction | None = None
    resolution: float = 0.0
    range: tuple[float, float] | None = None
    mask: str | None = None
    hides: tuple[str, ...] = ()
    scored: bool = True
    follows: Follows = None
    held: float | None = None
    lags: bool = False
    twin: str | None = None
    cause: _Cause = _Cause()
    alarms: tuple[Alarm, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.name is None) == (self.expand is None):
            raise ValueError("an entry has either a name or an expand label")
        if self.resolution < 0:
            raise ValueError(f"resolution {self.resolution} is negative")
        if self.range is not None and self.range[0] >= self.range[1]:
            raise ValueError(f"range {list(self.range)} is empty")
        return self


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    activity: str
    effort: str
    ignore: list[str] = []
    jobs: str
    islands: str | None = None
    software: str | None = None
    targets: str
    restart: list[str] = []
    ranks: dict[str, int] = {}
    signals: list[_Entry]


@dataclass(frozen=True, slots=True)
class Signal:
    """One signal: what to ask Prometheus, and how to judge the answer (see signals.yml)."""

    name: str
    kind: Literal["gauge", "counter"] = "gauge"
    direction: Direction = "both"
    resolution: float = 0.0
    range: tuple[float, float] | None = None
    mask: str | None = None
    hides: tuple[str, ...] = ()
    scored: bool = True
    follows: Follows = None
    cause_high: str | None = None
    cause_low: str | None = None
    alarms: tuple[Alarm, ...] = ()
    rank_high: int = 0  # of the causes, see signals.yml
    rank_low: int = 0
    together: Direction | None = None
    held: float | None = None  # work holds at least so much of it
    lasting: bool = False  # only what lasts says something
    twin: str | None = None  # another signal: while that one moves, this one does not stand still
    lags: bool = False  # is on its way for a while after work begins or ends
    restarts: bool = False  # set to another level, what was before says nothing of what is usual
    alone: bool = True  # may be an alarm by itself; what nobody has described is judged together with the rest

    def stuck(self) -> Signal:
        """The same signal, by how long its readings have not changed at all."""
        lasting = self.lasting or self.twin is not None  # a twin may be ahead for a moment
        return replace(
            self, direction="high", cause_high=SENSOR, cause_low=SENSOR, rank_high=-5, rank_low=-5, lasting=lasting
        )

    def cause(self, deviation: float) -> str:
        """What a deviation of that sign points to; the signal's own name where nothing better is known."""
        return (self.cause_high if deviation > 0 else self.cause_low) or self.name

    def rank(self, deviation: float) -> int:
        """How far downstream that cause is: of several at once the lowest brings the others about."""
        return self.rank_high if deviation > 0 else self.rank_low


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL expression and the signal it yields, or the label that names several."""

    promql: str
    signal: Signal | None
    expand: str | None

    @property
    def name(self) -> str:
        """How people know it."""
        return self.signal.name if self.signal else self.promql


@dataclass(frozen=True, slots=True)
class Signals:
    """The whole file."""

    queries: tuple[Query, ...]
    activity: str
    effort: str
    ignore: frozenset[str]
    jobs: str
    targets: str
    islands: str | None = None
    software: str | None = None

    def describe(self, name: str) -> Signal:
        """The signal of that name; one that the file does not list is an ordinary two-sided gauge."""
        known = {query.signal.name: query.signal for query in self.queries if query.signal}
        return known.get(name) or Signal(name, alone=False)


def load(path: Path = DEFAULT) -> Signals:
    """Read and check a signals file. Raises SignalsError with the place of the first mistake."""
    try:
        content = yaml.safe_load(path.read_text())
        file = _File.model_validate(content)
    except OSError as error:
        raise SignalsError(f"cannot read {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise SignalsError(f"{path} is not YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise SignalsError(f"{path}: {place}: {first['msg']}") from error
    names = [entry.name for entry in file.signals if entry.name]
    for name in names:
        if names.count(name) > 1:
            raise SignalsError(f"{path}: the signal {name!r} is listed twice")
    for entry in file.signals:
        if entry.twin is not None and entry.twin not in names:
            raise SignalsError(f"{path}: {entry.name} has the twin {entry.twin!r}, which is not a signal")
    queries = tuple(Query(entry.query, _signal(entry, file), entry.expand) for entry in file.signals)
    for name in file.restart:
        if name not in names:
            raise SignalsError(f"{path}: restart names {name!r}, which is not a signal")
    return Signals(
        queries,
        file.activity,
        file.effort,
        frozenset(file.ignore),
        file.jobs,
        file.targets,
        file.islands,
        file.software,
    )


def _signal(entry: _Entry, file: _File) -> Signal | None:
    if entry.name is None:
        return None
    return Signal(
        entry.name,
        entry.kind,
        entry.direction,
        entry.resolution,
        entry.range,
        entry.mask,
        entry.hides,
        entry.scored and not entry.alarms,
        entry.follows,
        entry.cause.high,
        entry.cause.low,
        entry.alarms,
        file.ranks.get(entry.cause.high or "", 0),
        file.ranks.get(entry.cause.low or "", 0),
        entry.together,
        entry.held,
        twin=entry.twin,
        lags=entry.lags,
        restarts=entry.name in file.restart,
    )
