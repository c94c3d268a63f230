"""Who goes where. Pure: the one scoring core that the live scheduler and the simulation share."""

from .fleet import Assignment, Candidate, Explanation, Look
from .obstacle import Obstacle, Reason, Room
from .plan import Demand, Plan, candidate, explain, penalty, plan, risk

__all__ = [
    "Assignment",
    "Candidate",
    "Demand",
    "Explanation",
    "Look",
    "Obstacle",
    "Plan",
    "Reason",
    "Room",
    "candidate",
    "explain",
    "penalty",
    "plan",
    "risk",
]
