from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.nodes import Cordon, Drain, Gpu, Node, Owner
from scheduler.placement import (
    Candidate,
    Obstacle,
    Plan,
    Reason,
    Room,
    candidate,
    explain,
    penalty,
    plan,
    risk,
)
from scheduler.placement.policies import POLICIES


@dataclass(frozen=True)
class Wanted:
    id: str
    gpus: int
    nodes: int = 1
    avoid: frozenset[str] = frozenset()
    starving: bool = False


def node(name: str, free: int, capacity: int = 8, score: float = 0.0, why_not: str | None = None) -> Candidate:
    return Candidate(
        name,
        capacity,
        tuple(range(free)),
        (penalty(score),) * free,
        busy=capacity - free,
        why_not=why_not,
    )


def places(found: Plan) -> dict[str, list[tuple[str, tuple[int, ...]]]]:
    return {each.job: [(share.node, share.gpus) for share in each.shares] for each in found.assignments}


def test_a_job_goes_to_the_node_that_it_fills() -> None:
    found = plan([Wanted("a", 2)], [node("large", 8), node("small", 2), node("tiny", 1)])
    assert places(found) == {"a": [("small", (0, 1))]}


def test_a_doubtful_gpu_is_taken_last() -> None:
    doubtful = Candidate("n", 2, (1, 0), (penalty(0.1), penalty(0.9)))
    assert places(plan([Wanted("a", 1), Wanted("b", 1)], [doubtful])) == {"a": [("n", (1,))], "b": [("n", (0,))]}


def test_health_outweighs_fragmentation() -> None:
    found = plan([Wanted("a", 2)], [node("doubtful", 2, score=0.95), node("healthy", 8, score=0.1)])
    assert places(found) == {"a": [("healthy", (0, 1))]}


def test_an_unknown_score_stands_between_good_and_doubtful() -> None:
    assert penalty(0.2) < penalty(None) < penalty(0.8)


def test_a_gang_spreads_evenly_over_its_nodes() -> None:
    found = plan([Wanted("a", 8, nodes=2)], [node("x", 3), node("y", 4), node("z", 5)])
    assert places(found) == {"a": [("y", (0, 1, 2, 3)), ("z", (0, 1, 2, 3))]}


def racked(name: str, rack: str, free: int = 8, score: float = 0.0, at_risk: float = 0.0) -> Candidate:
    return node(name, free, score=score)._replace(rack=rack, risk=at_risk)


def test_a_gang_stays_in_one_rack() -> None:
    nodes = [racked("a1", "a"), racked("b1", "b", 4), racked("b2", "b"), racked("b3", "b"), racked("c1", "c")]
    assert {name for name, _ in places(plan([Wanted("g", 16, nodes=2)], nodes))["g"]} == {"b2", "b3"}


def test_a_gang_too_large_for_a_rack_takes_few_racks_and_no_doubtful_node() -> None:
    full = [racked(f"{rack}{number}", rack) for rack in "ab" for number in range(3)]
    nodes = [racked("c0", "c"), *full]
    assert {name[0] for name, _ in places(plan([Wanted("g", 48, nodes=6)], nodes))["g"]} == {"a", "b"}
    doubtful = [*nodes[:-1], racked("b2", "b", score=0.9)]
    assert "b2" not in {name for name, _ in places(plan([Wanted("g", 48, nodes=6)], doubtful))["g"]}


def test_a_node_that_failed_lately_is_taken_last() -> None:
    nodes = [racked("lemon", "a", at_risk=0.5), racked("good", "a")]
    assert places(plan([Wanted("a", 8)], nodes)) == {"a": [("good", tuple(range(8)))]}


def test_one_failure_weighs_little_until_there_are_more() -> None:
    assert risk(0, 0) == 0
    assert 0 < risk(1, 1) < risk(20, 4) < risk(20, 12) < 1


def test_the_same_input_gives_the_same_plan() -> None:
    nodes = [node(f"n{number}", 8, score=number % 5 / 10) for number in range(30)]
    jobs = [Wanted(f"j{number}", 1 + number % 4) for number in range(50)]
    for policy in POLICIES:
        assert plan(jobs, nodes, policy=policy) == plan(jobs, nodes, policy=policy)


def test_an_explanation_stays_small() -> None:
    nodes = [node(f"n{number}", 8) for number in range(100)] + [node("d", 8, why_not="draining: fans")]
    (assignment,) = plan([Wanted("a", 64, nodes=8)], nodes).assignments
    assert len(assignment.why.looks) == 5
    assert assignment.why.counts == {"fits": 100, "too few GPUs free": 0, "draining: fans": 1}


def test_a_gang_is_placed_whole_or_not_at_all() -> None:
    found = plan([Wanted("a", 8, nodes=2)], [node("x", 3), node("y", 4)])
    assert places(found) == {}
    reason = Reason(Obstacle.BUSY, "needs 4 GPUs on each of 2 nodes; 1 node has as many free")
    assert found.reasons == {(8, 2): reason}


def test_a_job_that_does_not_fit_holds_back_no_other() -> None:
    found = plan([Wanted("big", 8), Wanted("small", 1)], [node("x", 4)])
    assert places(found) == {"small": [("x", (0,))]}
    assert found.reasons == {(8, 1): Reason(Obstacle.BUSY, "needs 8 GPUs on one node; best node has 4 free")}


def test_a_starved_job_has_the_node_kept_that_is_free_soonest() -> None:
    nodes = [node("x", 3), node("y", 6), node("z", 1)]
    found = plan([Wanted("big", 8, starving=True), Wanted("a", 4), Wanted("b", 1)], nodes)
    assert places(found) == {"b": [("z", (0,))]}
    obstacles = {shape: reason.obstacle for shape, reason in found.reasons.items()}
    assert obstacles == {(8, 1): "fragmented", (4, 1): "kept"}
    found = plan([Wanted("big", 8), Wanted("a", 4), Wanted("b", 1)], nodes)
    assert places(found) == {"a": [("y", (0, 1, 2, 3))], "b": [("z", (0,))]}


def test_only_one_starved_job_has_nodes_kept() -> None:
    starved = [Wanted(name, 8, starving=True) for name in ("first", "second")]
    found = plan([*starved, Wanted("a", 1)], [node("x", 3), node("y", 6)])
    assert places(found) == {"a": [("x", (0,))]}


def test_the_place_of_an_earlier_failure_is_avoided_but_not_forbidden() -> None:
    nodes = [node("bad", 1), node("good", 8)]
    avoiding = Wanted("a", 1, avoid=frozenset({"bad"}))
    assert places(plan([avoiding], nodes)) == {"a": [("good", (0,))]}
    assert places(plan([avoiding], nodes[:1])) == {"a": [("bad", (0,))]}


def test_at_most_the_limit_is_placed() -> None:
    found = plan([Wanted(str(number), 1) for number in range(5)], [node("x", 8)], limit=3)
    assert len(found.assignments) == 3


def test_the_terms_of_a_decision_sum_to_its_cost() -> None:
    (assignment,) = plan([Wanted("a", 2)], [node("x", 4, score=0.5), node("y", 8), node("z", 1)]).assignments
    fitting = [look for look in assignment.why.looks if look.fits]
    assert [look.node for look in fitting if look.chosen] == ["y"] or fitting[0].chosen
    for look in fitting:
        assert sum(look.terms.values()) == pytest.approx(look.cost)
    assert [look.why_not for look in assignment.why.looks if not look.fits] == ["1 free, 7 busy, 0 cordoned"]


def test_explaining_a_waiting_job_places_nothing() -> None:
    why = explain(Wanted("a", 8), [node("x", 4), node("y", 8, why_not="draining: fans")])
    assert why.counts == {"fits": 0, "too few GPUs free": 1, "draining: fans": 1}
    assert [(look.node, look.chosen, look.why_not) for look in why.looks] == [
        ("x", False, "4 free, 4 busy, 0 cordoned"),
        ("y", False, "draining: fans"),
    ]


def test_the_reason_names_cordons_and_states() -> None:
    cordoned = Candidate("x", 8, (0, 1, 2, 3, 4), (0.0,) * 5, busy=2, cordoned=("score 1.40",))
    room = Room([cordoned])
    assert room.reason(8, 1).text == "needs 8 GPUs on one node; best node has 5 free, 1 cordoned (score 1.40)"
    assert room.reason(16, 1).text == "needs 16 GPUs on one node; the largest node has 8"
    assert Room([]).reason(1, 1).text == "needs 1 GPU on one node; there are no nodes"
    closed = [node("x", 8, why_not="draining: fans"), node("y", 8, why_not="draining: fans")]
    assert Room(closed).reason(1, 1).text == "needs 1 GPU on one node; no node takes work: 2 × draining: fans"


DRAINED = node("d", 8, why_not="drained: fans")
ILL = Candidate("i", 8, (0, 1, 2), (0.0,) * 3, cordoned=("score 1.40",) * 5)


@pytest.mark.parametrize(
    ("gpus", "nodes", "known", "expected"),
    [
        (1, 1, [], Obstacle.TOO_LARGE),
        (9, 1, [node("x", 8), node("y", 8)], Obstacle.TOO_LARGE),
        (16, 2, [node("x", 8), DRAINED, node("y", 1, capacity=4)], Obstacle.UNAVAILABLE),
        (8, 1, [DRAINED, ILL], Obstacle.CORDONED),
        (16, 2, [DRAINED, ILL], Obstacle.UNAVAILABLE),
        (3, 1, [DRAINED, ILL._replace(why_not="kept for a job", kept=True), node("x", 2)], Obstacle.KEPT),
        (8, 1, [node("x", 3), node("y", 5)], Obstacle.FRAGMENTED),
        (8, 1, [node("x", 3), node("y", 4)], Obstacle.BUSY),
        (8, 1, [node("x", 3), node("y", 5)._replace(why_not="kept for a job", kept=True)], Obstacle.BUSY),
    ],
)
def test_what_waiting_mends_least_is_what_stands_in_the_way(
    gpus: int, nodes: int, known: list[Candidate], expected: Obstacle
) -> None:
    assert Room(known).reason(gpus, nodes).obstacle == expected


def test_a_candidate_offers_neither_held_nor_cordoned_gpus() -> None:
    gpus = tuple(Gpu(index) for index in range(4))
    cordons = (Cordon("n", 1, "score", "score 1.20", 0.0),)
    seen = Node("n", None, "real", gpus, True, None, None, cordons, frozenset({2}))
    found = candidate(seen, {("n", 0): 0.9, ("n", 3): 0.1})
    assert found.free == (3, 0)
    assert found.cordoned == ("score 1.20",)


def test_a_draining_node_takes_nothing() -> None:
    seen = Node("n", None, "real", (Gpu(0),), True, None, Drain("fans", Owner.PERSON, 0.0), (), frozenset())
    assert places(plan([Wanted("a", 1)], [candidate(seen, {})])) == {}


candidates = st.lists(
    st.builds(
        lambda free, extra, scores, closed: Candidate(
            "",
            free + extra,
            tuple(range(free)),
            tuple(sorted(penalty(score) for score in scores[:free])),
            why_not="closed" if closed else None,
        ),
        st.integers(0, 8),
        st.integers(0, 4),
        st.lists(st.floats(0, 2), min_size=8, max_size=8),
        st.booleans(),
    ),
    max_size=12,
).map(
    lambda nodes: [
        Candidate(f"n{row}", each.capacity, each.free, each.penalties, why_not=each.why_not)
        for row, each in enumerate(nodes)
    ]
)
wishes = st.lists(
    st.tuples(st.integers(1, 8), st.integers(1, 4), st.frozensets(st.sampled_from(["n0", "n1"]))), max_size=40
).map(lambda shapes: [Wanted(f"j{row}", per * nodes, nodes, avoid) for row, (per, nodes, avoid) in enumerate(shapes)])


@given(wishes, candidates)
def test_no_gpu_goes_to_two_and_none_of_a_closed_node_to_anyone(wanted: list[Wanted], nodes: list[Candidate]) -> None:
    found = plan(wanted, nodes)
    known = {each.name: each for each in nodes}
    taken = [(share.node, gpu) for each in found.assignments for share in each.shares for gpu in share.gpus]
    assert len(taken) == len(set(taken))
    assert all(gpu in known[name].free and known[name].why_not is None for name, gpu in taken)
    by_id = {job.id: job for job in wanted}
    for each in found.assignments:
        job = by_id[each.job]
        assert len({share.node for share in each.shares}) == job.nodes
        assert {len(share.gpus) for share in each.shares} == {job.gpus // job.nodes}
    placed = {each.job for each in found.assignments}
    assert all((job.gpus, job.nodes) in found.reasons for job in wanted if job.id not in placed)


@given(wishes, candidates)
def test_who_waits_could_not_have_been_placed(wanted: list[Wanted], nodes: list[Candidate]) -> None:
    found = plan(wanted, nodes)
    taken = {(share.node, gpu) for each in found.assignments for share in each.shares for gpu in share.gpus}
    left = [sum((n.name, gpu) not in taken for gpu in n.free) if n.why_not is None else 0 for n in nodes]
    placed = {each.job for each in found.assignments}
    for job in wanted:
        if job.id not in placed:
            assert sum(free >= job.gpus // job.nodes for free in left) < job.nodes
