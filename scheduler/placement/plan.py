"""Waiting jobs and what the nodes have → assignments, each with its explanation. Pure.

A job takes the nodes where its cost is least, counted in GPUs:

    cost = packing + health + history + avoided

`packing` is the policy's (policies.py; the default's is mostly by how much the expected fragments grow over
the mix of jobs), `health` grows with the chosen GPUs' penalties, `history` with the node's risk, `avoided`
stands where an earlier attempt lost its machine. A gang goes to as few racks as can take it.
No shape of job stands in the way of another: when one does not fit, the next is tried. Only the first that
has starved has nodes kept for it, so that many small jobs cannot shut a large one out for ever.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ..nodes import Node, NodeState
from .fleet import Assignment, Candidate, Explanation, Fleet, Request
from .obstacle import Reason, Room
from .policies import DEFAULT

#: As bad as a score of 0.5: what nobody has an opinion on is neither healthy nor ill.
UNKNOWN_PENALTY = 0.25
#: Attempts without a failure that every node is credited with.
UNTRIED = 10

#: GPUs in all, and nodes.
Demand = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Plan:
    assignments: tuple[Assignment, ...]
    #: Why jobs of this shape wait.
    reasons: dict[Demand, Reason]


def penalty(score: float | None) -> float:
    """In [0, 1]: small for a healthy score's noise, steep towards the threshold."""
    return UNKNOWN_PENALTY if score is None else min(1.0, max(0.0, score)) ** 2


def risk(attempts: int, failures: int) -> float:
    """Of a node: the share of its attempts that the machine failed, small until there are some."""
    return failures / (attempts + UNTRIED) if failures else 0.0


def candidate(node: Node, scores: dict[tuple[str, int], float], risk: float = 0.0) -> Candidate:
    """A node with what is free on it now. Its scores and its risk only grade; cordons exclude."""
    indices = [gpu.index for gpu in node.gpus]
    cordons = {index: cordon.reason for index in indices if (cordon := node.cordon(index))} if node.cordons else {}
    open_to_all = [index for index in indices if index not in node.held and index not in cordons]
    free = sorted((penalty(scores.get((node.name, index))), index) for index in open_to_all)
    why_not = None
    if not node.placeable:
        state = node.state
        drained = state in (NodeState.DRAINING, NodeState.DRAINED)
        why_not = f"{state}: {node.why}" if drained else (node.why or str(state))
    return Candidate(
        name=node.name,
        capacity=len(node.gpus),
        free=tuple(index for _, index in free),
        penalties=tuple(cost for cost, _ in free),
        busy=len(node.held),
        cordoned=tuple(cordons.values()),
        why_not=why_not,
        rack=node.rack,
        risk=min(1.0, risk),
    )


def plan(
    waiting: Sequence[Request], candidates: Sequence[Candidate], limit: int | None = None, policy: str = DEFAULT
) -> Plan:
    """Place the jobs in the order given, at most `limit` of them. Never two on one GPU.

    The same input gives the same plan. The mix of jobs that space is kept for is that of those waiting.
    """
    fleet = Fleet(candidates, policy, waiting)
    assignments: list[Assignment] = []
    reasons: dict[Demand, Reason] = {}
    room: Room | None = None
    kept = False
    for job in waiting:
        if limit is not None and len(assignments) >= limit:
            break
        per_node = job.gpus // job.nodes
        # What is free only shrinks in one pass: a shape that failed, fails again, and so do larger ones.
        hopeless = any(gpus // nodes <= per_node and nodes <= job.nodes for gpus, nodes in reasons)
        if not hopeless and (assignment := fleet.place(job)):
            assignments.append(assignment)
            room = None
            continue
        shape = job.gpus, job.nodes
        if shape not in reasons:
            room = room or Room(fleet.candidates)
            reasons[shape] = room.reason(*shape)
        if job.starving and not kept:
            kept = fleet.keep(job)
            room = None
    return Plan(tuple(assignments), reasons)


def explain(job: Request, candidates: Sequence[Candidate]) -> Explanation:
    """How the nodes look to a job right now."""
    fleet = Fleet(candidates, DEFAULT, [job])
    return fleet.explain(job, fleet.cost(job))
