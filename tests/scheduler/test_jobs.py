import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.jobs import (
    AGEING_SECONDS,
    JobState,
    Part,
    PartState,
    Priority,
    TransitionError,
    check,
    rank,
    reconcile,
)
from scheduler.names import readable_name
from scheduler.workload import draw


def test_final_states_are_final() -> None:
    final = {state for state in JobState if state.final}
    assert final == {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.TIMED_OUT}
    for old in final:
        for new in JobState:
            with pytest.raises(TransitionError):
                check("job-1", old, new)


def test_a_queued_job_cannot_run_without_being_assigned() -> None:
    with pytest.raises(TransitionError, match="job job-1 is queued and cannot become running"):
        check("job-1", JobState.QUEUED, JobState.RUNNING)


def test_waiting_makes_up_for_one_priority() -> None:
    assert rank(Priority.CRITICAL, 100.0) < rank(Priority.HIGH, 100.0) < rank(Priority.LOW, 100.0)
    assert rank(Priority.LOW, 0.0) < rank(Priority.NORMAL, AGEING_SECONDS + 1)


def part(fence: int, state: PartState) -> Part:
    return Part(fence, "n", "job-1", (0,), state)


def test_an_offer_is_repeated_until_it_is_held() -> None:
    offered = [part(1, PartState.ASSIGNED)]
    assert reconcile(offered, frozenset()).offer == {1}
    assert reconcile(offered, frozenset({1})).began == {1}


def test_a_running_part_that_is_not_held_is_missing() -> None:
    assert reconcile([part(1, PartState.RUNNING)], frozenset()).missing == {1}


def test_what_is_over_is_stopped_and_then_released() -> None:
    stopping = [part(1, PartState.STOPPING)]
    assert reconcile(stopping, frozenset({1})).stop == {1}
    assert reconcile(stopping, frozenset()).released == {1}
    assert reconcile([], frozenset({7})).stop == {7}


@given(
    st.lists(st.builds(part, st.integers(0, 9), st.sampled_from(PartState)), unique_by=lambda each: each.fence),
    st.frozensets(st.integers(0, 12)),
)
def test_each_fence_has_at_most_one_consequence(parts: list[Part], held: frozenset[int]) -> None:
    found = reconcile(parts, held)
    groups = [found.offer, found.stop, found.began, found.released, found.missing]
    assert sum(map(len, groups)) == len(frozenset().union(*groups))


def test_names_never_repeat() -> None:
    names = [readable_name(number) for number in range(5000)]
    assert len(set(names)) == 5000
    assert all(a.partition("-")[0] != b.partition("-")[0] for a, b in pairwise(names[:30]))


def test_the_generator_keeps_to_its_mix() -> None:
    chance = random.Random(1)
    drawn = [draw(chance) for _ in range(20_000)]
    types = Counter(str(job.type) for job in drawn)
    assert {name: count / 20_000 for name, count in types.items()} == pytest.approx(
        {"sleep": 0.3, "compute": 0.4, "matrix": 0.2, "fault": 0.1}, abs=0.015
    )
    priorities = Counter(job.priority.name for job in drawn)
    assert {name: count / 20_000 for name, count in priorities.items()} == pytest.approx(
        {"LOW": 0.2, "NORMAL": 0.5, "HIGH": 0.2, "CRITICAL": 0.1}, abs=0.015
    )
    durations = sorted(job.duration_seconds or 0.0 for job in drawn)
    assert durations[10_000] == pytest.approx(60, rel=0.05)
    assert durations[-1] < 300
