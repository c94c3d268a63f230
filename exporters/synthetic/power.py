"""Power limits that somebody sets, as `nvidia-smi --power-limit` does on a real GPU."""

from dataclasses import dataclass

from exporters.synthetic.arrays import Integers
from exporters.synthetic.parts import ConflictError
from exporters.synthetic.physics import Cards, State

LEAST_SHARE = 0.3  # of the model's own limit; a board takes no less


@dataclass(frozen=True, slots=True)
class Limit:
    """A GPU's power limit now, and the least that its board takes."""

    watts: float
    least_watts: float


def limits(cards: Cards, state: State, rows: Integers) -> list[Limit]:
    """Of these GPUs, in their order."""
    return [Limit(float(state.allowed_watts[row]), LEAST_SHARE * float(cards.limit_watts[row])) for row in rows]


def allow(cards: Cards, state: State, row: int, watts: float) -> None:
    """Sets a GPU's limit. Raises `ConflictError` for one that its board does not take."""
    most = float(cards.limit_watts[row])
    if not LEAST_SHARE * most <= watts <= most:
        raise ConflictError(f"the GPU takes a power limit of {LEAST_SHARE * most:g} to {most:g} W, not {watts:g} W")
    state.allowed_watts[row] = watts


def forget(cards: Cards, state: State, rows: Integers) -> None:
    """The driver was loaded anew: limits are the boards' own again."""
    state.allowed_watts[rows] = cards.limit_watts[rows]
