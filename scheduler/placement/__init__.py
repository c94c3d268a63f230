"""Who goes where. Pure: the one scoring core that the live scheduler and the simulation share."""

from .fleet import Assignment, Candidate, Explanation, Look
from .plan import Plan, candidate, explain, penalty, plan, risk, why_not

__all__ = [
    "Assignment",
    "Candidate",
    "Explanation",
    "Look",
    "Plan",
    "candidate",
    "explain",
    "penalty",
    "plan",
    "risk",
    "why_not",
]
