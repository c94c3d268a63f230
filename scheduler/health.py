"""What Prometheus says of each GPU, and what that means for placement. The only reader of Prometheus."""

import math
from dataclasses import dataclass, field
from typing import Self

import httpx
from pydantic import BaseModel, ValidationError

from .clock import now
from .nodes import gpu_named

#: Scores and the times of their samples in one evaluation, so that the two belong together.
QUERY = (
    'label_replace(max by (node, gpu) (stethos_anomaly_score), "what", "score", "", "") '
    'or label_replace(max by (node, gpu) (timestamp(stethos_anomaly_score)), "what", "timestamp", "", "")'
)

#: From this score on it is asked why, too ...
EXPLAINED = 0.5
#: ... for so many GPUs at most, the worst ones: a detector gone mad must not make the answer long.
MOST_EXPLAINED = 256
_WORST = f"topk({MOST_EXPLAINED}, max by (node, gpu) (stethos_anomaly_score) >= {EXPLAINED})"
#: The signals that a score comes from, and what they point to.
WHY = (
    f"max by (node, gpu, signal) (stethos_anomaly_contribution) and on (node, gpu) {_WORST} "
    f"or max by (node, gpu, cause) (stethos_anomaly_cause) and on (node, gpu) {_WORST}"
)

Place = tuple[str, int]


class HealthUnavailableError(Exception):
    """Prometheus did not answer, or not with what was asked for."""


@dataclass(frozen=True, slots=True)
class Health:
    """A GPU's anomaly score (1 is the alert threshold) and the age of its sample in seconds."""

    score: float
    age: float


@dataclass(frozen=True, slots=True)
class Anomaly:
    """Why a score is high. Cause: what its leading signal points to, None under the alert threshold. Contributions:
    (signal, share of the score in [0, 1]), the largest first.
    """

    cause: str | None
    contributions: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Scores, and times in seconds."""

    block: float = 1.0
    #: So many of the newest readings have to be bad ...
    confirm: int = 2
    of: int = 3
    #: ... unless one is as bad as this.
    urgent: float = 2.0
    clear: float = 0.7
    clear_seconds: float = 20.0
    #: An older score is no opinion.
    stale_seconds: float = 30.0
    #: A GPU that was bad and then fell silent is let go after so long.
    forget_seconds: float = 900.0

    def __post_init__(self) -> None:
        if not self.clear < self.block:
            raise ValueError(f"the clear threshold {self.clear:g} must be under the block threshold {self.block:g}")
        if not 1 <= self.confirm <= self.of:
            raise ValueError(f"{self.confirm} of {self.of} readings cannot confirm a bad score")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether new work may go to a GPU. `since` is when it began to be good, or silent, while blocked; `bad`: which
    of the newest readings were bad, while it is not.
    """

    blocked: bool = False
    silent: bool = False
    since: float | None = None
    bad: tuple[bool, ...] = ()


def judge(before: Verdict, score: float | None, at: float, limits: Thresholds) -> Verdict:
    """The verdict after one more score (None: no opinion) at the time `at`.

    Blocked by `confirm` of the newest `of` readings from `block` on, or at once by an `urgent` one; free again after
    `clear_seconds` under `clear` without a break. No opinion blocks nothing, and it is no recovery either: it frees
    only after `forget_seconds`.
    """
    high = score is not None and score >= limits.block
    if not before.blocked:
        bad = (*before.bad, high)[-limits.of :]
        if sum(bad) >= limits.confirm or (score is not None and score >= limits.urgent):
            return Verdict(blocked=True)
        return Verdict(bad=bad) if any(bad) else Verdict()
    if score is not None and score >= limits.clear:
        return Verdict(blocked=True)
    silent = score is None
    since = before.since if before.since is not None and before.silent == silent else at
    needed = limits.forget_seconds if silent else limits.clear_seconds
    return Verdict() if at - since >= needed else Verdict(True, silent, since)


class _Answer(BaseModel):
    """Prometheus' own answer to an instant query; only what is read of it."""

    class Data(BaseModel):
        class Series(BaseModel):
            metric: dict[str, str]
            #: Its time, and itself, which comes as text.
            value: tuple[float, float]

        result: list[Series]

    status: str
    data: Data


_Sample = tuple[Place, dict[str, str], float]


def _samples(text: bytes) -> tuple[float, list[_Sample]]:
    """The time of an answer's evaluation, and its samples; NaN and series without node or GPU are left out."""
    try:
        answer = _Answer.model_validate_json(text)
    except ValidationError as error:
        raise HealthUnavailableError(f"an answer that is not Prometheus': {error.errors()[0]['msg']}") from error
    found: list[_Sample] = []
    for series in answer.data.result:
        node, gpu = series.metric.get("node"), gpu_named(series.metric.get("gpu", ""))
        if node and gpu is not None and math.isfinite(series.value[1]):
            found.append(((node, gpu), series.metric, series.value[1]))
    return max((series.value[0] for series in answer.data.result), default=0.0), found


def parse(text: bytes, stale_seconds: float) -> dict[Place, Health]:
    """The answer to QUERY. Stale scores are left out."""
    found: dict[str, dict[Place, float]] = {"score": {}, "timestamp": {}}
    evaluated_at, samples = _samples(text)
    for place, labels, value in samples:
        found[labels["what"]][place] = value
    healths = {
        place: Health(score, max(0.0, evaluated_at - found["timestamp"][place]))
        for place, score in found["score"].items()
        if place in found["timestamp"]
    }
    return {place: health for place, health in healths.items() if health.age <= stale_seconds}


def parse_why(text: bytes) -> dict[Place, Anomaly]:
    """The answer to WHY."""
    causes: dict[Place, str] = {}
    shares: dict[Place, list[tuple[str, float]]] = {}
    for place, labels, value in _samples(text)[1]:
        if "cause" in labels:
            causes[place] = labels["cause"]
        elif "signal" in labels:
            shares.setdefault(place, []).append((labels["signal"], value))
    return {
        place: Anomaly(causes.get(place), tuple(sorted(shares.get(place, ()), key=lambda share: (-share[1], share[0]))))
        for place in causes.keys() | shares.keys()
    }


class Prometheus:
    """Asks for all GPUs at once. Raises HealthUnavailableError when that fails."""

    def __init__(self, url: str, stale_seconds: float) -> None:
        self._stale_seconds = stale_seconds
        self._client = httpx.AsyncClient(base_url=url.rstrip("/"), timeout=4)

    async def scores(self) -> dict[Place, Health]:
        return parse(await self._ask(QUERY), self._stale_seconds)

    async def anomalies(self) -> dict[Place, Anomaly]:
        """Why the worst GPUs have their scores; GPUs under EXPLAINED are left out."""
        return parse_why(await self._ask(WHY))

    async def _ask(self, query: str) -> bytes:
        try:
            answer = await self._client.post("/api/v1/query", data={"query": query})
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise HealthUnavailableError(str(error) or type(error).__name__) from error
        return answer.content

    async def close(self) -> None:
        await self._client.aclose()


@dataclass(frozen=True, slots=True)
class Reading:
    """The newest scores, when they were read, and why the high ones are. Ages go on growing until the next reading."""

    state: str
    read_at: float | None
    scores: dict[Place, Health]
    anomalies: dict[Place, Anomaly] = field(default_factory=dict)

    @classmethod
    def none(cls, state: str) -> Self:
        return cls(state, None, {})

    def at(self, place: Place, stale_seconds: float) -> Health | None:
        """A GPU's health now; None when there is no opinion."""
        health = self.scores.get(place)
        if health is None or self.read_at is None:
            return None
        age = health.age + now() - self.read_at
        return Health(health.score, age) if age <= stale_seconds else None
