"""Cooling before draining: a GPU that is too hot gets a lower power limit, and its own again once it has cooled.

What was lowered is on disk before it is lowered, so that an agent that was killed gives it back after its restart. A
limit that is not ours any more was set by an operator, and stays.
"""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from ..clock import now

log = structlog.get_logger()

LOOK_SECONDS = 5.0
#: A limit that differs by less is the same: drivers round.
SAME_WATTS = 1.0
#: Below what it draws, or nothing gets cooler; but no more at once than to this share of the limit.
LOWER, DEEPEST = 0.9, 0.75


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU as it is now. `least_watts`: the lowest limit that it takes."""

    node: str
    gpu: int
    uuid: str
    celsius: float
    draw_watts: float
    limit_watts: float
    least_watts: float


class LimitError(Exception):
    """The power limits cannot be read or set."""


class Cards(Protocol):
    """GPUs whose power limit can be set. Reading and setting raise LimitError."""

    async def read(self) -> Sequence[Card]: ...
    async def limit(self, card: Card, watts: float) -> None: ...
    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Rules:
    """Cool above `hot_celsius` until `cool_celsius`, a step every so often."""

    hot_celsius: float = 85.0
    cool_celsius: float = 80.0
    step_seconds: float = 10.0


#: Lowers nothing, and gives back what an earlier agent has lowered.
GIVE_BACK = Rules(float("inf"), float("inf"))


class Claim(BaseModel):
    """A limit that we have lowered. `ours`: the values that it may have from us; none once an operator has set it."""

    model_config = ConfigDict(frozen=True)

    node: str
    gpu: int
    uuid: str
    usual_watts: float
    ours: tuple[float, ...]
    celsius: float
    stepped_at: float

    @property
    def limit_watts(self) -> float:
        return self.ours[-1]


@dataclass(frozen=True, slots=True)
class Step:
    """What to remember of a GPU from now on, and the limit to set then, if one is to be set."""

    claim: Claim | None
    watts: float | None = None


def step(card: Card, claim: Claim | None, rules: Rules, at: float) -> Step:
    """What follows from one look at a GPU, at the time `at` in seconds."""
    cool = card.celsius <= rules.cool_celsius
    if claim is None:
        return _lower(card, card.limit_watts, (), at) if card.celsius > rules.hot_celsius else Step(None)
    if not any(abs(card.limit_watts - watts) <= SAME_WATTS for watts in claim.ours):
        # An operator's limit is left alone, at least until this heat is over.
        return Step(None) if cool else Step(claim.model_copy(update={"ours": ()}))
    if cool:
        return Step(None, claim.usual_watts)
    if card.celsius > rules.hot_celsius and at - claim.stepped_at >= rules.step_seconds:
        return _lower(card, claim.usual_watts, claim.ours[-1:], at)
    # A clock that was set back must not put the next step off.
    return Step(claim.model_copy(update={"stepped_at": min(claim.stepped_at, at)}))


def _lower(card: Card, usual: float, ours: tuple[float, ...], at: float) -> Step:
    wanted = max(DEEPEST * card.limit_watts, LOWER * min(card.limit_watts, card.draw_watts))
    watts = max(card.least_watts, round(wanted))
    lower = card.limit_watts - watts > SAME_WATTS
    if not lower and not ours:
        return Step(None)
    # The value before is ours as well, until the new one is known to be set.
    claim = Claim(
        node=card.node,
        gpu=card.gpu,
        uuid=card.uuid,
        usual_watts=usual,
        ours=(*ours, watts) if lower else ours,
        celsius=card.celsius,
        stepped_at=at,
    )
    return Step(claim, watts if lower else None)


_CLAIMS = TypeAdapter(list[Claim])


class Cooler:
    """Looks at all GPUs every few seconds. `file` survives the agent."""

    def __init__(self, cards: Cards, rules: Rules, file: Path) -> None:
        self._cards, self._rules, self._file = cards, rules, file
        self._claims = {claim.uuid: claim for claim in read(file)}
        self._troubles: list[str] = []

    def lowered(self) -> list[Claim]:
        """What is lowered now, and by us."""
        return [claim for claim in self._claims.values() if claim.ours]

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """One look, and what follows from it."""
        troubles: list[str] = []
        try:
            cards = await self._cards.read()
        except LimitError as error:
            cards = []
            troubles.append(str(error))
        for card in cards:
            try:
                await self._apply(card, step(card, self._claims.get(card.uuid), self._rules, now()))
            except (LimitError, OSError) as error:
                troubles.append(f"GPU {card.gpu} of {card.node}: {error}")
        if troubles and troubles != self._troubles:
            log.warning("no cooling", detail="; ".join(troubles[:3]), troubles=len(troubles))
        self._troubles = troubles

    async def stop(self) -> None:
        """The agent stops: every limit that is still ours becomes what it was."""
        self._rules = GIVE_BACK
        if self._claims:
            await self.look()
        await self._cards.close()

    async def _apply(self, card: Card, then: Step) -> None:
        before = self._claims.get(card.uuid)
        if then.claim is not None and then.claim != before:
            self._remember(card.uuid, then.claim)
        if then.watts is not None:
            try:
                await self._cards.limit(card, then.watts)
            except LimitError:
                # Lowered or not, the next look tells; what never was, is not ours.
                if before is None:
                    self._remember(card.uuid, None)
                raise
            where = {"node": card.node, "gpu": card.gpu, "celsius": card.celsius}
            log.info("power limit set", **where, watts=then.watts, before=card.limit_watts)
        if then.claim is None and before is not None:
            self._remember(card.uuid, None)

    def _remember(self, uuid: str, claim: Claim | None) -> None:
        claims = {key: known for key, known in self._claims.items() if key != uuid}
        if claim is not None:
            claims[uuid] = claim
        write(self._file, list(claims.values()))
        self._claims = claims


def read(file: Path) -> list[Claim]:
    """What an earlier agent has lowered."""
    try:
        return _CLAIMS.validate_json(file.read_bytes())
    except FileNotFoundError:
        return []
    except ValidationError:
        log.error("the power limits of an earlier agent cannot be read: look at them", file=str(file))
        return []


def write(file: Path, claims: list[Claim]) -> None:
    """On disk once this returns, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(".new")
    with new.open("wb") as out:
        out.write(_CLAIMS.dump_json(claims))
        out.flush()
        os.fsync(out.fileno())
    new.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
