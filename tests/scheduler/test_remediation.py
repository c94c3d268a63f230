"""Hold, breaker, overrule, eviction, probation: against a real store, with the time of the transactions moved on."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.jobs import JobState, JobType, Outcome, Share, Specification
from scheduler.nodes import SCORE, WHOLE_NODE, Gpu, GpuHealth, Node, Owner
from scheduler.remediation import FAST_WINDOW_SECONDS, Breaker, Policy, Record, black_holes
from scheduler.store import Store, Transaction, alerts, attempts, jobs, nodes, remediation, reports
from scheduler.store.alerts import Alert
from scheduler.store.attempts import Placement
from scheduler.store.remediation import Held, Watched
from scheduler.store.reports import Report, StaleReportError

T = TypeVar("T")
POLICY = Policy(fleet_share=0.5, rack_share=1.0, floor=2, canary_seconds=5.0)


class Place:
    """A store with two nodes of four GPUs, and a clock that can be moved on."""

    def __init__(self, path: Path) -> None:
        self.store = Store(path / "db")
        self.later = 0.0
        for name in ("a", "b"):
            self.do(nodes.register, name, "rack-1", "real", [Gpu(index) for index in range(4)])
            self.do(nodes.set_reachable, name, True)

    def do(self, work: Callable[..., T], *args: object, **kwargs: object) -> T:
        def moved(tx: Transaction) -> T:
            tx.now += self.later
            return work(tx, *args, **kwargs)

        return asyncio.run(self.store.write(moved))

    def node(self, name: str = "a") -> Node:
        return self.do(nodes.get, name)

    def hold(self, gpu: int, source: str = SCORE, policy: Policy = POLICY, name: str = "a", **more: object) -> Held:
        return self.do(remediation.hold, policy, self.node(name), gpu, source, "bad", **more)

    def health(self, gpu: int, name: str = "a", score: float | None = None) -> GpuHealth:
        return self.node(name).health(gpu, score, 0.7)

    def watch(self, scores: dict[tuple[str, int], float] | None = None) -> Watched:
        return self.do(remediation.watch, POLICY, scores or {}, 0.7)

    def run(self, *gpus: int, name: str = "a") -> tuple[str, int]:
        """A job that has begun on these GPUs, and its fence."""
        job = self.do(jobs.submit, Specification(JobType.SLEEP, len(gpus)))
        (fence,) = self.do(attempts.place, [Placement(job, (Share(name, gpus),), "{}")])
        self.do(attempts.apply, name, frozenset({fence}))
        return job.id, fence

    def events(self) -> list[str]:
        return [row["type"] for row in self.do(lambda tx: tx.all("events_after", after=0, limit=1000))]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.store.close()


def test_health_says_where_a_gpu_stands(place: Place) -> None:
    assert (place.health(0), place.health(0, score=0.69), place.health(0, score=0.7)) == (
        GpuHealth.HEALTHY,
        GpuHealth.HEALTHY,
        GpuHealth.SUSPECT,
    )
    place.run(0)
    place.hold(0)
    place.hold(1)
    assert (place.health(0), place.health(1)) == (GpuHealth.QUARANTINED, GpuHealth.DRAINED)
    place.do(nodes.drain, "a", "mine", Owner.PERSON)
    assert place.health(0) == GpuHealth.MAINTENANCE
    place.do(nodes.set_reachable, "a", False, "gone")
    assert place.health(0) == GpuHealth.UNREACHABLE


def test_a_score_leaves_the_running_job_alone(place: Place) -> None:
    job, _ = place.run(0)
    assert place.hold(0).done
    assert place.do(jobs.get, job).state == JobState.RUNNING


def test_eviction_queues_the_job_again_elsewhere_and_waits_for_the_agent_to_let_go(place: Place) -> None:
    job, fence = place.run(0, 1)
    assert place.hold(1, "alert:x", evict=True).ended == ()
    taken = place.do(jobs.get, job)
    assert (taken.state, taken.avoid, taken.reason) == (JobState.QUEUED, frozenset("a"), "taken from a: bad")
    assert place.health(1) == GpuHealth.DRAINING
    place.hold(1, "alert:x", evict=True)
    assert place.do(jobs.get, job).retries_used == 1  # told twice, taken once
    place.do(attempts.apply, "a", frozenset())
    assert place.health(1) == GpuHealth.DRAINED
    assert place.do(remediation.reliability)["a"].infrastructure_failures == 1
    with pytest.raises(StaleReportError):
        place.do(reports.take, [Report(fence, "a", Outcome.SUCCEEDED)])


def test_the_breaker_bounds_what_is_held_at_once(place: Place) -> None:
    assert [place.hold(gpu).done for gpu in range(4)] == [True] * 4
    refused = place.hold(0, name="b")
    assert not refused.done
    assert refused.effect == "held back by the circuit breaker: 4 of 8 GPUs of the fleet are held already"
    assert place.node("b").cordons == ()
    assert place.hold(0, "alert:y").done  # the same GPU twice is still one GPU


def test_a_rack_has_a_bound_of_its_own(place: Place) -> None:
    place.do(nodes.register, "c", "rack-2", "real", [Gpu(index) for index in range(8)])
    policy = Policy(fleet_share=1.0, rack_share=0.25, floor=1)
    assert [place.hold(gpu, policy=policy).done for gpu in range(3)] == [True, True, False]
    assert place.hold(0, policy=policy, name="c").done


@given(
    st.dictionaries(st.sampled_from(["", "r1", "r2"]), st.integers(1, 50).map(lambda n: (n, 0)), min_size=1),
    st.lists(st.tuples(st.sampled_from(["", "r1", "r2"]), st.integers(1, 8))),
    st.floats(0, 1),
)
def test_whatever_is_admitted_stays_within_every_bound(
    racks: dict[str, tuple[int, int]], wishes: list[tuple[str, int]], share: float
) -> None:
    breaker = Breaker(Policy(share, share, floor=2), racks)
    for rack, gpus in wishes:
        if rack in racks:
            breaker.admit(rack or None, gpus)
    assert all(domain.held <= domain.bound for domain in breaker.domains())


def test_a_dry_run_tells_and_does_nothing(place: Place) -> None:
    dry = Policy(dry_run=True)
    assert place.hold(0, policy=dry).effect == "dry run: would be cordoned"
    assert place.node().cordons == ()


def test_a_person_overrules_what_is_known_but_not_what_comes(place: Place) -> None:
    place.hold(0)
    place.do(remediation.overrule, "a", 0)
    assert place.hold(0).effect == "overruled by a person"
    assert place.hold(0, "alert:x", kin=SCORE).effect == "overruled by a person"
    assert place.hold(0, "alert:y").done
    place.do(remediation.forget_overrule, "a", 0, SCORE)
    assert place.hold(0).done


def test_an_alert_that_a_person_overruled_stays_overruled_until_it_fires_anew(place: Place) -> None:
    def fire(starts_at: str, status: str = "firing") -> str:
        labels = {"alertname": "GpuXid", "severity": "critical", "node": "a", "gpu": "2"}
        effect = place.do(alerts.receive, Alert("f", status, starts_at, labels, {}), 900.0, POLICY)
        return effect.text

    assert fire("t1") == "gpu cordoned"
    place.do(remediation.overrule, "a", 2)
    assert fire("t1") == "overruled by a person"
    assert fire("t2") == "gpu cordoned"


def test_an_alert_may_ask_for_draining_or_for_nothing(place: Place) -> None:
    job, _ = place.run(3)
    labels = {"alertname": "GpuXid", "severity": "critical", "node": "a", "gpu": "3"}
    observed = Alert("f1", "firing", "t", {**labels, "action": "observe"}, {})
    assert place.do(alerts.receive, observed, 900.0, POLICY).text == "recorded"
    place.do(alerts.receive, Alert("f2", "firing", "t", {**labels, "action": "drain"}, {}), 900.0, POLICY)
    assert place.do(jobs.get, job).state == JobState.QUEUED


def canary(place: Place, state: JobState) -> None:
    """Let the canary that runs now end that way."""
    (probation,) = place.do(remediation.probations)
    assert probation.canary
    (fence,) = (part.fence for part in place.do(attempts.live_parts, ["a"])["a"])
    place.do(attempts.apply, "a", frozenset({fence}))
    outcome = Outcome.SUCCEEDED if state == JobState.SUCCEEDED else Outcome.FAILED
    reason = None if state == JobState.SUCCEEDED else "a product is wrong"
    place.do(reports.take, [Report(fence, "a", outcome, reason)])
    assert place.do(jobs.get, probation.canary).state == state


def test_a_gpu_comes_back_by_a_canary_job_on_it_alone(place: Place) -> None:
    place.hold(1)
    place.do(remediation.release, POLICY, "a", 1, SCORE, "score 0.20")
    assert place.health(1) == GpuHealth.PROBATION
    assert place.watch().wake == {"a"}
    assert place.node().held == {1}
    canary(place, JobState.SUCCEEDED)
    assert place.watch({("a", 1): 0.9}).passed == 0  # not while its score is high
    assert place.watch({("a", 1): 0.1}).passed == 1
    assert (place.health(1), place.node().cordons) == (GpuHealth.HEALTHY, ())
    served = place.do(remediation.reliability)["a"]
    assert (served.attempts, served.repairs) == (0, 1)  # a canary is no service


def test_each_failed_canary_makes_the_next_wait_longer(place: Place) -> None:
    place.hold(1)
    place.do(remediation.release, POLICY, "a", 1, SCORE, "score 0.20")
    for strikes in (1, 2):
        place.watch()
        canary(place, JobState.FAILED)
        assert place.watch().failed == 1
        place.later += POLICY.retry_after(strikes) - 1
        assert not place.watch().wake
        place.later += 1
    assert place.health(1) == GpuHealth.PROBATION
    assert [POLICY.retry_after(strikes) for strikes in (1, 2, 3, 20)] == [60.0, 120.0, 240.0, 3600.0]
    assert place.events().count("canary.failed") == 2


def test_evidence_during_probation_ends_it(place: Place) -> None:
    place.hold(1)
    place.do(remediation.release, POLICY, "a", 1, SCORE, "score 0.20")
    place.watch()
    (probation,) = place.do(remediation.probations)
    place.hold(1)
    place.watch()
    assert probation.canary
    assert place.do(jobs.get, probation.canary).state == JobState.CANCELLED
    assert [cordon.source for cordon in place.node().cordons] == [SCORE]
    assert place.do(lambda tx: tx.one("probation", node="a", gpu=1)["strikes"]) == 1


def test_a_canary_that_is_handed_back_goes_nowhere_else(place: Place) -> None:
    place.hold(1)
    place.do(remediation.release, POLICY, "a", 1, SCORE, "score 0.20")
    place.watch()
    (probation,) = place.do(remediation.probations)
    place.do(attempts.leave_node, "a")
    assert probation.canary
    assert place.do(jobs.get, probation.canary).state == JobState.CANCELLED
    assert place.watch().failed == 0
    place.do(nodes.set_reachable, "a", True)
    place.later += POLICY.retry_seconds
    assert place.watch().wake == {"a"}
    assert place.do(lambda tx: tx.one("probation", node="a", gpu=1)["strikes"]) == 0


def test_no_canary_goes_to_a_gpu_that_is_no_longer_there(place: Place) -> None:
    place.hold(3)
    place.do(remediation.release, POLICY, "a", 3, SCORE, "score 0.20")
    place.do(nodes.register, "a", "rack-1", "real", [Gpu(index) for index in range(2)])
    assert not place.watch().wake
    place.do(nodes.register, "a", "rack-1", "real", [Gpu(index) for index in range(4)])
    assert place.watch().wake == {"a"}


def test_no_canary_disturbs_what_a_person_keeps(place: Place) -> None:
    place.hold(1)
    place.do(remediation.release, POLICY, "a", 1, SCORE, "score 0.20")
    place.do(nodes.drain, "a", "mine", Owner.PERSON)
    assert not place.watch().wake
    place.do(nodes.undrain, "a", Owner.PERSON)
    assert place.watch().wake == {"a"}


def test_a_node_on_which_everything_fails_at_once_is_held(place: Place) -> None:
    for _ in range(12):
        for name, outcome in (("a", Outcome.FAILED), ("b", Outcome.SUCCEEDED)):
            _, fence = place.run(0, name=name)
            place.do(reports.take, [Report(fence, name, outcome, "cannot load")])
    place.watch()
    (held,) = place.node().cordons
    assert (held.gpu, held.reason) == (WHOLE_NODE, "12 jobs failed there within 10 s of their start")
    assert place.node("b").cordons == ()
    place.later += FAST_WINDOW_SECONDS + 1
    place.watch()
    assert [cordon.source for cordon in place.node().cordons] == ["probation"]


def test_a_job_that_fails_everywhere_makes_no_black_hole() -> None:
    assert black_holes({"a": Record(12, 12), "b": Record(40, 40)}) == []
    assert black_holes({"a": Record(12, 12)}) == []  # nothing to compare with
    assert black_holes({"a": Record(12, 2), "b": Record(400, 0)}) == []  # too few
    assert black_holes({"a": Record(12, 12), "b": Record(400, 4)}) == ["a"]
