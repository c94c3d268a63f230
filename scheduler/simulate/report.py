"""What a simulation found, as a table for people and as JSON for programs."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict

from .health import Outcome
from .packing import LOADS, Curves, Estimate

Json = dict[str, object]


def document(curves: Curves, health: Mapping[str, object] | None) -> Json:
    workloads = {
        workload: {
            policy: {str(load): asdict(estimate) for load, estimate in curve.items()}
            for policy, curve in policies.items()
        }
        for workload, policies in curves.items()
    }
    return {"workloads": workloads, "health": health}


def packing_lines(curves: Curves, published: Mapping[tuple[str, str, int], float]) -> Iterable[str]:
    """GPU allocation in %; in brackets the 95 % interval at 100 % load, beside it what was published."""
    for workload, policies in curves.items():
        yield ""
        yield f"GPU allocation in % at arrived load, {workload}"
        yield (
            f"{'policy':<13}"
            + "".join(f"{load:>8} %" for load in LOADS)
            + "   95 % interval at 100 %  published at 100 %"
        )
        for policy, curve in policies.items():
            cells = "".join(f"{curve[load].mean:>10.2f}" for load in LOADS)
            known = published.get((workload, policy, 100))
            yield f"{policy:<13}{cells}   {_interval(curve[100]):<24}{'' if known is None else f'{known:.2f}'}"


def health_lines(title: str, outcomes: Mapping[str, Mapping[str, Estimate]]) -> Iterable[str]:
    """One line for each way of using health; each cell a mean with its 95 % interval."""
    yield ""
    yield title
    yield f"{'health':<10}" + "".join(f"{name.replace('_', ' '):>26}" for name in Outcome.__slots__)
    for mode, found in outcomes.items():
        cells = (f"{found[name].mean:.2f} {_interval(found[name])}" for name in Outcome.__slots__)
        yield f"{mode:<10}" + "".join(f"{cell:>26}" for cell in cells)


def _interval(estimate: Estimate) -> str:
    return f"({estimate.low:.2f}–{estimate.high:.2f})"
