"""Waiting jobs and what the nodes have → assignments, each with its explanation. Pure.

A job takes the nodes where its cost is least, counted in GPUs:

    cost = packing + health + history + avoided

`packing` is the policy's (policies.py; the default's is mostly by how much the expected fragments grow over
the mix of jobs), `health` grows with the chosen GPUs' penalties, `history` with the node's risk, `avoided`
stands where an earlier attempt lost its machine. A gang goes to as few racks as can take it.
No shape of job stands in the way of another: when one does not fit, the next is tried. Only the first that
has starved has nodes kept for it, so that many small jobs cannot shut a large one out for ever.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ..nodes import Node, NodeState
from .fleet import Assignment, Candidate, Explanation, Fleet, Request
from .policies import DEFAULT

#: As bad as a score of 0.5: what nobody has an opinion on is neither healthy nor ill.
UNKNOWN_PENALTY = 0.25
#: Attempts without a failure that every node is credited with.
UNTRIED = 10


@dataclass(frozen=True, slots=True)
class Plan:
    assignments: tuple[Assignment, ...]
    #: (gpus, nodes) → why jobs of this shape wait.
    reasons: dict[tuple[int, int], str]


def penalty(score: float | None) -> float:
    """In [0, 1]: small for a healthy score's noise, steep towards the threshold."""
    return UNKNOWN_PENALTY if score is None else min(1.0, max(0.0, score)) ** 2


def risk(attempts: int, failures: int) -> float:
    """Of a node: the share of its attempts that the machine failed, small until there are some."""
    return failures / (attempts + UNTRIED) if failures else 0.0


def candidate(node: Node, scores: dict[tuple[str, int], float], risk: float = 0.0) -> Candidate:
    """A node with what is free on it now. Its scores and its risk only grade; cordons exclude."""
    free, cordoned = [], []
    for gpu in node.gpus:
        if cordon := node.cordon(gpu.index):
            cordoned.append(cordon.reason)
        elif gpu.index not in node.held:
            free.append((penalty(scores.get((node.name, gpu.index))), gpu.index))
    free.sort()
    why_not = None if node.placeable else (node.why or str(node.state))
    if node.state in (NodeState.DRAINING, NodeState.DRAINED):
        why_not = f"{node.state}: {node.why}"
    return Candidate(
        name=node.name,
        capacity=len(node.gpus),
        free=tuple(index for _, index in free),
        penalties=tuple(cost for cost, _ in free),
        busy=len(node.held),
        cordoned=tuple(cordoned),
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
    reasons: dict[tuple[int, int], str] = {}
    kept = False
    for job in waiting:
        if limit is not None and len(assignments) >= limit:
            break
        per_node = job.gpus // job.nodes
        # What is free only shrinks in one pass: a shape that failed, fails again, and so do larger ones.
        hopeless = any(gpus // nodes <= per_node and nodes <= job.nodes for gpus, nodes in reasons)
        if not hopeless and (assignment := fleet.place(job)):
            assignments.append(assignment)
            continue
        reasons.setdefault((job.gpus, job.nodes), why_not(job.gpus, job.nodes, fleet.candidates))
        if job.starving and not kept:
            kept = fleet.keep(job)
    return Plan(tuple(assignments), reasons)


def explain(job: Request, candidates: Sequence[Candidate]) -> Explanation:
    """How the nodes look to a job right now."""
    fleet = Fleet(candidates, DEFAULT, [job])
    return fleet.explain(job, fleet.cost(job))


def why_not(gpus: int, nodes: int, candidates: Sequence[Candidate]) -> str:
    """In words, why a job of this shape waits."""
    per_node = gpus // nodes
    where = "one node" if nodes == 1 else f"each of {nodes} nodes"
    needs = f"needs {per_node} GPU{'s' * (per_node != 1)} on {where}"
    if not candidates:
        return f"{needs}; there are no nodes"
    if sum(node.capacity >= per_node for node in candidates) < nodes:
        return f"{needs}; the largest node has {max(node.capacity for node in candidates)}"
    open_nodes = [node for node in candidates if node.why_not is None]
    if not open_nodes:
        reasons = Counter(node.why_not for node in candidates).most_common(3)
        return f"{needs}; no node takes work: " + ", ".join(f"{count} × {why}" for why, count in reasons)
    best = max(open_nodes, key=lambda node: len(node.free))
    fitting = sum(len(node.free) >= per_node for node in open_nodes)
    text = f"{needs}; best node has {len(best.free)} free"
    if nodes > 1:
        text = f"{needs}; {fitting} node{'s have' if fitting != 1 else ' has'} as many free"
    if best.cordoned:
        text += f", {len(best.cordoned)} cordoned ({best.cordoned[0]})"
    return text
