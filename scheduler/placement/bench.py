"""python -m scheduler.placement.bench: placement decisions per CPU second, explanations included."""

from dataclasses import dataclass
from time import process_time

import click
import numpy as np

from .fleet import Candidate
from .plan import plan
from .policies import DEFAULT, POLICIES

GPUS = 8
RACK = 8


@dataclass(frozen=True, slots=True)
class Wanted:
    """A job as the benchmark asks for it."""

    id: str
    gpus: int
    nodes: int = 1
    avoid: frozenset[str] = frozenset()
    starving: bool = False


def fleet(nodes: int, generator: np.random.Generator) -> list[Candidate]:
    """Nodes of 8 GPUs, each with a score."""
    found = []
    for number in range(nodes):
        penalties = sorted((float(score) ** 2, gpu) for gpu, score in enumerate(generator.uniform(0, 0.6, GPUS)))
        free = tuple(gpu for _, gpu in penalties)
        costs = tuple(cost for cost, _ in penalties)
        found.append(Candidate(f"node-{number}", GPUS, free, costs, rack=f"rack-{number // RACK}"))
    return found


def fill(nodes: int, policy: str, gangs: bool, seed: int) -> tuple[int, float]:
    """Jobs of 1, 2, 4 and 8 GPUs until the fleet is full. Decisions, and CPU seconds of planning (one thread)."""
    generator = np.random.default_rng(seed)
    able = fleet(nodes, generator)
    sizes = generator.choice([1, 1, 1, 2, 4, 8], 2 * nodes).tolist()
    jobs = [
        Wanted(f"job-{number}", 16 if gangs and number % 10 == 0 else size, 2 if gangs and number % 10 == 0 else 1)
        for number, size in enumerate(sizes)
    ]
    began = process_time()
    found = plan(jobs, able, policy=policy)
    return len(found.assignments), process_time() - began


@click.command(context_settings={"show_default": True})
@click.option("--nodes", type=click.IntRange(1, 100_000), default=1213, help="Nodes of 8 GPUs.")
@click.option("--policy", "names", multiple=True, default=(DEFAULT,), help="May be given again.")
@click.option("--rounds", type=click.IntRange(1, 100), default=5, help="The median of so many counts.")
def main(nodes: int, names: tuple[str, ...], rounds: int) -> None:
    """Fill a fleet, and count the decisions; building the arrays is part of it."""
    for name in names:
        if name not in POLICIES:
            raise click.BadParameter(f"{name!r} is none of {', '.join(POLICIES)}", param_hint="--policy")
        for title, gangs in (("single nodes", False), ("a tenth of them gangs", True)):
            rates = sorted(decisions / seconds for decisions, seconds in _measure(nodes, name, gangs, rounds))
            click.echo(
                f"{name}, {nodes} nodes, {title}: {rates[len(rates) // 2]:,.0f} decisions per CPU second "
                f"({rates[0]:,.0f} to {rates[-1]:,.0f})"
            )


def _measure(nodes: int, policy: str, gangs: bool, rounds: int) -> list[tuple[int, float]]:
    return [fill(nodes, policy, gangs, 1) for _ in range(rounds)]


if __name__ == "__main__":
    main()
