"""Which place in the arrays belongs to which GPU."""

from collections.abc import Mapping

import numpy as np

from exporters.synthetic.arrays import Integers
from exporters.synthetic.faults import Fault
from exporters.synthetic.parts import Node, NotFoundError


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
