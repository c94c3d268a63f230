"""Prometheus HTTP service discovery: which nodes there are, where their pages lie, and what they hang on."""

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node stands: topology travels as target labels. An empty label is left out."""

    node: str
    rack: str = ""
    switch: str = ""


def targets(places: Iterable[Place], address: str) -> list[dict[str, object]]:
    """One target group per node. `address` is how the asker reached us, so it can reach us again."""
    return [
        {
            "targets": [address],
            "labels": {
                "__metrics_path__": f"/nodes/{quote(place.node, safe='')}/metrics",
                "node": place.node,
                **({"rack": place.rack} if place.rack else {}),
                **({"switch": place.switch} if place.switch else {}),
            },
        }
        for place in places
    ]
