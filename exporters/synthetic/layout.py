"""Where nodes stand, and which place in the arrays belongs to which GPU."""

import uuid
from collections import Counter
from collections.abc import Mapping

import numpy as np

from exporters.discovery import Place
from exporters.reading import GpuIdentity
from exporters.synthetic.arrays import Integers
from exporters.synthetic.faults import Fault
from exporters.synthetic.models import MODELS
from exporters.synthetic.parts import ConflictError, Node, NotFoundError

DRIVERS = ("550.90.07", "550.127.05", "550.144.03")  # of which the next is installed
_VBIOS = "96.00.A5.00.01"
_NAMESPACE = uuid.UUID("5f0c3b7e-3d0c-5c1a-9b57-6a1c62d0a2f4")


def new_node(nodes: Mapping[str, Node], name: str, gpus: int, model: str, seed: int, gpus_per_rack: int) -> Node:
    """A node in the first rack that has room beside `nodes`. Raises `ConflictError` or `NotFoundError`."""
    if name in nodes:
        raise ConflictError(f"node {name!r} exists already")
    if model not in MODELS:
        raise NotFoundError(f"there is no GPU model {model!r}; there are {', '.join(MODELS)}")
    taken = Counter[int]()
    for node in nodes.values():
        taken[node.rack_index] += len(node.gpus)
    rack = 0
    while taken[rack] and taken[rack] + gpus > gpus_per_rack:
        rack += 1
    made = MODELS[model]
    place = Place(name, f"rack-{rack + 1}", f"switch-{rack // 2 + 1}")
    island = f"{uuid.uuid5(_NAMESPACE, f'{seed}/{place.rack}')}.1" if made.nvlink_by_rack else ""
    return Node(place, rack, made, tuple(_identity(seed, name, gpu, made.name, island) for gpu in range(gpus)))


def _identity(seed: int, node: str, gpu: int, model: str, island: str) -> GpuIdentity:
    return GpuIdentity(
        gpu=gpu,
        uuid=f"GPU-{uuid.uuid5(_NAMESPACE, f'{seed}/{node}/{gpu}')}",
        pci_bus_id=f"00000000:{0x19 + 0x11 * gpu & 0xFF:02X}:00.0",
        minor=gpu,
        model=model,
        island=island,
        driver=DRIVERS[0],
        vbios=_VBIOS,
    )


class Layout:
    """GPUs in the order of their nodes. Made anew when nodes come or go."""

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self.owners: list[tuple[str, int]] = []  # place → (node, GPU)
        self._nodes = nodes
        self._rows: dict[str, Integers] = {}
        for name, node in nodes.items():
            self._rows[name] = np.arange(len(self.owners), len(self.owners) + len(node.gpus))
            self.owners += [(name, gpu) for gpu in range(len(node.gpus))]
        self.nodes = np.repeat(np.arange(len(nodes)), [len(node.gpus) for node in nodes.values()])
        self.racks = np.array([node.rack_index for node in nodes.values() for _ in node.gpus], np.int64)

    def rows(self, node: str) -> Integers:
        """The node's places. Raises `NotFoundError`."""
        if node not in self._rows:
            raise NotFoundError(f"there is no node {node!r}")
        return self._rows[node]

    def row(self, node: str, gpu: int) -> int:
        """The GPU's place. Raises `NotFoundError`."""
        rows = self.rows(node)
        if not 0 <= gpu < len(rows):
            raise NotFoundError(f"node {node!r} has no GPU {gpu}; it has 0 to {len(rows) - 1}")
        return int(rows[gpu])

    def befallen(self, fault: Fault) -> Integers:
        """The places that a fault is about. Raises `NotFoundError`."""
        if fault.node is None:
            racks = {node.place.rack: node.rack_index for node in self._nodes.values()}
            if fault.rack not in racks:
                raise NotFoundError(f"there is no rack {fault.rack!r}")
            return np.flatnonzero(self.racks == racks[fault.rack])
        rows = self.rows(fault.node)
        return rows if fault.gpu is None else np.array([self.row(fault.node, fault.gpu)])
