"""The same case, but harder to see: telemetry that goes missing while it is scored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from detector.evaluation.case import Case
from detector.telemetry import Floats

Harder = Callable[[Case, int], Case]


def samples_missing(share: float) -> Harder:
    """A share of all test readings never arrives, each by itself."""

    def harder(case: Case, seed: int) -> Case:
        values = case.telemetry.values.copy()
        scored = values[..., case.split :]
        scored[np.random.default_rng(seed).random(scored.shape) < share] = np.nan
        return _with(case, values)

    return harder


def signal_missing(case: Case, seed: int) -> Case:
    """One signal, drawn at random among those that are reported, is gone from all entities throughout the test."""
    values = case.telemetry.values.copy()
    reported = np.flatnonzero(~np.isnan(values).all(axis=(1, 2)))
    values[int(np.random.default_rng(seed).choice(reported)), :, case.split :] = np.nan
    return _with(case, values)


def node_missing(case: Case, seed: int) -> Case:
    """One node, drawn at random, has never reported: it is missed as a peer. What happens on it is no event."""
    nodes = np.array([gpu.node for gpu in case.telemetry.gpus])
    gone = nodes == np.random.default_rng(seed).choice(np.unique(nodes))
    values = case.telemetry.values.copy()
    values[:, gone] = np.nan  # one that has fallen silent would be an alarm, and a right one
    left = [replace(event, entities=tuple(row for row in event.entities if not gone[row])) for event in case.events]
    return replace(
        _with(case, values),
        events=tuple(event for event in left if event.entities),
        labels=case.labels & ~gone[:, None],
        rules=case.rules & ~gone[:, None],
    )


def _with(case: Case, values: Floats) -> Case:
    return replace(case, telemetry=replace(case.telemetry, values=values))


STRESS: dict[str, Harder] = {
    "stethos_10_percent_missing": samples_missing(0.1),
    "stethos_30_percent_missing": samples_missing(0.3),
    "stethos_signal_missing": signal_missing,
    "stethos_node_missing": node_missing,
}
