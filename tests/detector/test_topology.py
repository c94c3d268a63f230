from dataclasses import replace

import numpy as np
import pytest

from detector import topology
from detector.telemetry import IDLE, Gpu
from detector.topology import Groups

from .fleets import gpus

FLEET = gpus(nodes=2)
COUNT = len(FLEET)
QUIET = np.zeros(COUNT, np.float32)
POWER = np.full(COUNT, 70, np.float32)


def jobs(**members: list[int]) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    job = np.full(COUNT, IDLE, np.int32)
    for index, ranks in enumerate(members.values()):
        job[ranks] = index
    return job


def sets(groups: Groups) -> list[set[int]]:
    return [
        set(groups.members[start:end].tolist())
        for start, end in zip(groups.offsets[:-1], groups.offsets[1:], strict=True)
    ]


def test_ranks_of_a_job_are_peers_across_nodes() -> None:
    built = topology.build(FLEET, jobs(a=[6, 7, 8, 9]), QUIET, POWER)
    assert sets(built["job"]) == [{6, 7, 8, 9}]
    assert built["job"].of[[5, 6, 9]].tolist() == [-1, 0, 0]


def test_ranks_on_another_gpu_model_are_no_peers() -> None:
    mixed = (*FLEET[:8], *(replace(gpu, model="A100") for gpu in FLEET[8:]))
    built = topology.build(mixed, jobs(a=list(range(4, 12))), QUIET, POWER)
    assert sets(built["job"]) == [{4, 5, 6, 7}, {8, 9, 10, 11}]


def test_gpus_of_one_node_that_work_for_different_jobs_are_no_node_peers() -> None:
    built = topology.build(FLEET, jobs(a=[0, 1, 2, 3], b=[4, 5, 6, 7]), QUIET, POWER)
    assert sets(built["node"]) == [{8, 9, 10, 11, 12, 13, 14, 15}, {0, 1, 2, 3}, {4, 5, 6, 7}]


def test_fewer_than_three_peers_are_none() -> None:
    built = topology.build(FLEET, jobs(a=[0, 1, 2]), QUIET, POWER)
    assert sets(built["job"]) == []


def test_a_busy_gpu_of_no_known_job_is_not_compared_with_idle_ones() -> None:
    activity = QUIET.copy()
    activity[0] = 0.9
    built = topology.build(FLEET, jobs(), activity, POWER)
    assert all(0 not in group for group in sets(built["node"]))


def test_load_peers_share_a_model_and_work_equally_hard() -> None:
    power = np.where(np.arange(COUNT) < 8, 600, 100).astype(np.float32)
    activity = np.where(np.arange(COUNT) < 8, 0.9, 0.8).astype(np.float32)
    built = topology.build(FLEET, jobs(), activity, power)
    assert sorted(map(sorted, sets(built["load"]))) == [list(range(8)), list(range(8, 16))]


def test_servers_without_any_gpu_signal_are_all_peers() -> None:
    nothing = np.full(COUNT, np.nan, np.float32)
    assert sets(topology.build(FLEET, jobs(), nothing, nothing)["load"]) == [set(range(COUNT))]


@pytest.mark.parametrize("size", [4, 5, 6, 7, 30])
def test_edges_join_each_member_with_distinct_others(size: int) -> None:
    groups = Groups(np.arange(size, dtype=np.int32), np.array([0, size], np.int32), np.zeros(size, np.int32))
    pairs = topology.edges(groups).T.tolist()
    assert len({tuple(pair) for pair in pairs}) == len(pairs) == size * min(size - 1, 2 * topology.REACH)
    assert all(source != target for source, target in pairs)


def test_stacked_steps_do_not_touch() -> None:
    one = topology.build(FLEET, jobs(a=[0, 1, 2, 3]), QUIET, POWER)
    two = topology.build(FLEET, jobs(a=[4, 5, 6, 7]), QUIET, POWER)
    stacked = topology.stack([one, two], COUNT)
    assert sets(stacked["job"]) == [{0, 1, 2, 3}, {20, 21, 22, 23}]
    assert stacked["job"].of[[0, 20, 4]].tolist() == [0, 1, -1]


def islands(*names: str) -> tuple[Gpu, ...]:
    """The fleet, each half of a node in the island of that name."""
    return tuple(replace(gpu, island=names[place // 4]) for place, gpu in enumerate(FLEET))


def test_nvlink_islands_are_peers_beyond_the_node_in_the_same_state() -> None:
    spanning = islands("", "x", "x", "x")
    assert topology.kinds([FLEET, spanning]) == topology.KINDS
    assert sets(topology.build(spanning, jobs(), QUIET, POWER)["island"]) == [set(range(4, 16))]
    built = topology.build(spanning, jobs(a=[4, 5, 6, 7]), QUIET, POWER)
    assert sets(built["island"]) == [set(range(8, 16)), {4, 5, 6, 7}]


@pytest.mark.parametrize(("names", "found"), [("xxyy", []), ("    ", []), ("wxyy", [{0, 1, 2, 3}, {4, 5, 6, 7}])])
def test_an_island_that_is_just_the_node_is_no_kind_of_its_own(names: str, found: list[set[int]]) -> None:
    fleet = islands(*map(str.strip, names))
    assert sets(topology.build(fleet, jobs(), QUIET, POWER)["island"]) == found
    assert ("island" in topology.kinds([fleet])) == bool(found)
