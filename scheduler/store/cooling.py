"""GPUs whose agents have lowered their power limit because they were too hot, as stored."""

from collections.abc import Iterable
from dataclasses import dataclass

from .transaction import Transaction


@dataclass(frozen=True, slots=True)
class Lowered:
    """What an agent tells: the limit now, the one before, and how hot the GPU was."""

    gpu: int
    limit_watts: float
    usual_watts: float
    celsius: float


@dataclass(frozen=True, slots=True)
class Cooling:
    """Since when a GPU's limit is lowered."""

    lowered: Lowered
    since: float


def get_all(tx: Transaction) -> dict[str, dict[int, Cooling]]:
    """By node and GPU."""
    found: dict[str, dict[int, Cooling]] = {}
    for row in tx.all("coolings"):
        lowered = Lowered(row["gpu"], row["limit_watts"], row["usual_watts"], row["celsius"])
        found.setdefault(row["node"], {})[lowered.gpu] = Cooling(lowered, row["since"])
    return found


def differs(known: dict[int, Cooling], told: Iterable[Lowered]) -> bool:
    """Whether there is something to note."""
    return {gpu: cooling.lowered for gpu, cooling in known.items()} != {lowered.gpu: lowered for lowered in told}


def note(tx: Transaction, node: str, known: dict[int, Cooling], told: Iterable[Lowered]) -> None:
    """Bring what is `known` of a node in line with what its agent tells, and tell of the changes."""
    now = {lowered.gpu: lowered for lowered in told}
    for gpu, lowered in now.items():
        before = known.get(gpu)
        if before is None or before.lowered != lowered:
            values = {"limit_watts": lowered.limit_watts, "usual_watts": lowered.usual_watts}
            since = before.since if before else tx.now
            tx.change("put_cooling", node=node, gpu=gpu, celsius=lowered.celsius, since=since, **values)
            reason = (
                f"{lowered.celsius:g} °C: power limit {lowered.limit_watts:g} W instead of {lowered.usual_watts:g} W"
            )
            tx.event("gpu.cooling", f"{node}/{gpu}", node=node, gpu=gpu, reason=reason, **values)
    for gpu in known.keys() - now.keys():
        tx.change("forget_cooling", node=node, gpu=gpu)
        reason = "its power limit is not lowered any more"
        tx.event("gpu.cooled", f"{node}/{gpu}", node=node, gpu=gpu, reason=reason)
