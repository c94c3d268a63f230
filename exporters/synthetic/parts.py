"""What a fleet is made of, and how it says no."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from exporters.discovery import Place
from exporters.reading import GpuIdentity
from exporters.synthetic.arrays import Integers
from exporters.synthetic.models import GpuModel


class NotFoundError(LookupError):
    """What was named does not exist."""


class ConflictError(Exception):
    """What was asked for contradicts what is."""


@dataclass(frozen=True, slots=True)
class Node:
    """One machine: where it stands, and who its GPUs are."""

    place: Place
    rack_index: int
    model: GpuModel
    gpus: tuple[GpuIdentity, ...]


@dataclass(slots=True)
class Load:
    """Work on GPUs of one node. Loads of one `job` on several nodes are ranks of that job."""

    id: str
    node: str
    gpus: tuple[int, ...]
    kind: str
    utilization: float
    job: str | None
    slot: int
    state: Literal["running", "interrupted"] = "running"
    reason: str | None = None


@dataclass(slots=True)
class Slots:
    """Which job slot each GPU sits in; 0 is idle."""

    slot: Integers = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass(frozen=True, slots=True)
class Pause:
    """What operators do to a healthy node, and the network to a scrape: no fault, and over by itself.

    scrape_gap: nobody hears the node; driver_restart: its GPUs are away; reboot: the node is.
    """

    kind: Literal["scrape_gap", "driver_restart", "reboot"]
    end_seconds: float
