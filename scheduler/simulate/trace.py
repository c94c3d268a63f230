"""The openb trace of GPU sharing (Weng et al., USENIX ATC 2023): nodes, jobs, and the published results."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TypeVar

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from ..placement.board import WHOLE, Board, Integers, Shape

NODES = "openb_node_list_gpu_node.csv"
JOBS = "openb_pod_list_"
RESULTS = Path("expected_results") / "analysis_allo_discrete.csv"
PUBLISHED = {
    "01-Random": "random",
    "02-DotProd": "dot-product",
    "03-GpuClustering": "clustering",
    "04-GpuPacking": "packing",
    "05-BestFit": "best-fit",
    "06-FGD": "fgd",
}


R = TypeVar("R", bound=BaseModel)


class TraceError(ValueError):
    """The trace cannot be read."""


class _NodeRow(BaseModel):
    cpu_milli: int = Field(ge=0)
    memory_mib: int = Field(ge=0)
    gpu: int = Field(ge=0, le=64)
    model: str


class _JobRow(BaseModel):
    cpu_milli: int = Field(ge=0)
    memory_mib: int = Field(ge=0)
    num_gpu: int = Field(ge=0)
    gpu_milli: int = Field(ge=0, le=WHOLE)
    gpu_spec: str = ""

    def shape(self) -> Shape:
        return Shape(
            self.num_gpu,
            self.gpu_milli or WHOLE,
            self.cpu_milli,
            self.memory_mib,
            frozenset(filter(None, self.gpu_spec.split("|"))),
        )


@dataclass(frozen=True, slots=True)
class Workload:
    """The shapes that occur, and which of them each job has."""

    name: str
    shapes: tuple[Shape, ...]
    jobs: Integers

    def amounts(self) -> Integers:
        """Thousandths of a GPU that each job asks for."""
        found: Integers = np.array([shape.amount for shape in self.shapes], dtype=np.int64)[self.jobs]
        return found

    def arrivals(self, capacity: int, load: float, generator: np.random.Generator) -> Integers:
        """Shapes in order of arrival until `load` times the capacity (thousandths of GPUs) is asked for.

        The published method: too few jobs are padded by drawing from them with replacement; too many are
        thinned; then all are shuffled.
        """
        amounts, wanted = self.amounts(), load * capacity
        jobs = self.jobs
        if not amounts.sum():
            raise TraceError(f"no job of the workload {self.name} asks for a GPU")
        if (missing := wanted - amounts.sum()) > 0:
            drawn = generator.integers(0, len(jobs), int(2 * missing / amounts.mean()) + 1000)
            enough = int(np.searchsorted(np.cumsum(amounts[drawn]), missing)) + 1
            jobs = np.concatenate([jobs, jobs[drawn[:enough]]])
        order = generator.permutation(len(jobs))
        asked = np.cumsum(np.concatenate([amounts, amounts[drawn[:enough]]])[order] if missing > 0 else amounts[order])
        return jobs[order][: int(np.searchsorted(asked, wanted)) + 1]


def board(folder: Path) -> Board:
    """The trace's nodes, all free. Raises TraceError."""
    nodes = list(_rows(folder / NODES, _NodeRow))
    widest = max((node.gpu for node in nodes), default=0)
    gpus = np.array([[WHOLE] * node.gpu + [0] * (widest - node.gpu) for node in nodes], dtype=np.int64)
    if not gpus.sum():
        raise TraceError(f"{folder / NODES} has no GPUs")
    cpu = np.array([node.cpu_milli for node in nodes], dtype=np.float64)
    memory = np.array([node.memory_mib for node in nodes], dtype=np.float64)
    return Board(cpu, memory, gpus, [node.model for node in nodes])


def workloads(folder: Path) -> list[str]:
    """The names of the workloads that lie in the folder. Raises TraceError when there are none."""
    found = sorted(path.stem.removeprefix(JOBS) for path in folder.glob(f"{JOBS}*.csv"))
    if not found:
        raise TraceError(f"{folder} has no {JOBS}*.csv")
    return sorted(found, key=lambda name: (name != "default", name))


def workload(folder: Path, name: str) -> Workload:
    """One of the trace's workloads. Raises TraceError."""
    shapes: dict[Shape, int] = {}
    jobs = [shapes.setdefault(row.shape(), len(shapes)) for row in _rows(folder / f"{JOBS}{name}.csv", _JobRow)]
    return Workload(name, tuple(shapes), np.array(jobs, dtype=np.int64))


def published(folder: Path) -> dict[tuple[str, str, int], float]:
    """(workload, policy, load %) → mean allocation in %, of the published runs; empty where they are not there."""
    found: dict[tuple[str, str, int], list[float]] = {}
    if (folder / RESULTS).exists():
        with (folder / RESULTS).open(newline="") as file:
            for row in csv.DictReader(file):
                name, policy = row["workload"].removeprefix(JOBS), PUBLISHED.get(row["sc_policy"])
                for load in (90, 95, 100, 110, 120, 130):
                    if policy and row[str(load)]:
                        found.setdefault((name, policy, load), []).append(float(row[str(load)]))
    return {key: fmean(values) for key, values in found.items()}


def _rows(path: Path, model: type[R]) -> Iterator[R]:
    try:
        with path.open(newline="") as file:
            for number, row in enumerate(csv.DictReader(file), 2):
                try:
                    yield model.model_validate(row)
                except ValidationError as error:
                    first = error.errors()[0]
                    raise TraceError(f"{path}, line {number}: {first['loc'][0]}: {first['msg']}") from error
    except OSError as error:
        raise TraceError(f"{path} cannot be read: {error.strerror}") from error
