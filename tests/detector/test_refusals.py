"""A query that Prometheus refuses costs what it would have told, and nothing else."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from detector import signals
from detector.findings import Findings
from detector.fleet import LENGTH, Fleet, Wishes
from detector.promql import Prometheus, PrometheusError
from detector.shard import Shard
from detector.signals import Signals
from detector.telemetry import IDLE
from detector.verdicts import MISSING

from .conftest import Serve
from .fleets import START, STEP, telemetry
from .test_robust import ALL, COVERAGE, FAILED, whole
from .world import NODES, Watch, scores, world

TYPO = "sum by ("
REFUSED = "stethos_detector_query_refusals_total"


@pytest.mark.slow
def test_the_signal_is_absent_and_the_others_are_judged(tmp_path: Path) -> None:
    wanted = changed(signals.load(), power_watts="gpu:power:watts * on (node) group_left () gate")
    with world(tmp_path / "prometheus") as place, Prometheus(place.url, timeout=30.0) as client:
        gates = [(node, "gate 1") for node in NODES]
        place.exporter.more += gates
        place.start()
        watch = Watch(client, tmp_path, wanted)
        before = watch.until("a quiet fleet", whole)
        with capture_logs() as logs:
            place.exporter.more.append(("node-03", 'gate{slot="b"} 1'))  # now it is not clear which to multiply with
            page = watch.until(
                "refusals",
                lambda page: (
                    page[f"{REFUSED} power_watts"] >= 3
                    and len(scores(page)) == ALL
                    and page[COVERAGE] == pytest.approx(0.8)
                ),
            )
            assert max(scores(page).values()) < 1
            assert page[f"{REFUSED} temperature_celsius"] == page[f"{REFUSED} jobs"] == 0
            assert watch.service.unready() is None
            place.exporter.more[:] = gates
            page = watch.until("all signals again", whole)
        assert page[FAILED] == before[FAILED]
    said = [entry["event"] for entry in logs if entry.get("query") == "power_watts"]
    assert said == ["a query is refused", "a query is answered again"]


def test_where_every_signal_is_refused_the_tick_has_failed(prometheus: Serve, tmp_path: Path) -> None:
    with Prometheus(prometheus(telemetry(120, nodes=1))) as client:
        wanted = signals.load()
        typos = replace(wanted, queries=tuple(replace(query, promql=TYPO) for query in wanted.queries))
        fleet = Fleet(client, typos, tmp_path, STEP)
        with pytest.raises(PrometheusError, match="refuses 'max by"):
            fleet.tick(START + 100 * STEP)


def test_who_is_known_by_the_refused_signal_alone_is_not_called_missing(prometheus: Serve, tmp_path: Path) -> None:
    only = {"temperature_celsius": 'gpu:temperature:celsius{node="node-01"}', "power_watts": "gpu:power:watts"}
    wanted = signals.load()
    few = replace(wanted, queries=tuple(q for q in changed(wanted, **only).queries if q.name in only))
    with Prometheus(prometheus(telemetry(200, nodes=2))) as client:
        fleet = Fleet(client, few, tmp_path, STEP)
        assert len(fleet.tick(START + 120 * STEP).verdicts) == 16
        fleet._ingest._signals = changed(few, power_watts=TYPO)
        for found in ticks(fleet, range(121, 150)):
            assert MISSING not in found.causes.values()
        assert {gpu.node for gpu in found} == {"node-01"}, "of the others nothing is known"


def test_without_knowing_who_is_scraped_nobody_is_missing_and_nobody_has_left(
    prometheus: Serve, tmp_path: Path
) -> None:
    recorded = telemetry(LENGTH + 160, nodes=2)
    recorded.values[:, 3, 110:] = np.nan
    wanted = signals.load()
    with Prometheus(prometheus(recorded)) as client:
        fleet = Fleet(client, replace(wanted, targets=TYPO), tmp_path, STEP)
        for found in ticks(fleet, [100, *range(110, 120)]):
            assert MISSING not in found.causes.values()
        assert len(found) == 15, "the silent one has no score"
        fleet.tick(START + (LENGTH + 140) * STEP)
        assert len(fleet.gpus) == 16
        fleet._ingest._signals = wanted
        (found,) = ticks(fleet, [LENGTH + 141])
        assert list(found.causes.values()) == [MISSING]


def test_jobs_are_taken_to_go_on_for_a_minute_while_nobody_tells_them(prometheus: Serve, tmp_path: Path) -> None:
    recorded = telemetry(200, nodes=2)
    wanted = signals.load()
    with Prometheus(prometheus(recorded)) as client:
        fleet = Fleet(client, wanted, tmp_path, STEP)
        fleet.tick(START + 80 * STEP)
        there = fleet._window.telemetry().job[:, -1] != IDLE
        assert there.all()
        fleet._ingest._signals = replace(wanted, jobs=TYPO)
        held = [fleet._window.telemetry().job[:, -1] != IDLE for _ in ticks(fleet, range(81, 100))]
        assert [bool(each.any()) for each in held] == [True] * 12 + [False] * 7
        assert all(each.all() for each in held[:12])
        fleet._ingest._signals = wanted
        for _ in ticks(fleet, [100]):
            assert (fleet._window.telemetry().job[:, -1] != IDLE).all()


def test_a_share_of_the_fleet_keeps_the_nodes_that_only_a_refused_query_tells(
    prometheus: Serve, tmp_path: Path
) -> None:
    recorded, share = telemetry(160, nodes=4), Shard(1, 2)
    mine = sorted({gpu.node for gpu in recorded.gpus if share.has(gpu)})
    only = changed(signals.load(), power_watts=f'gpu:power:watts{{node="{mine[0]}"}}')
    few = replace(
        only, queries=tuple(query for query in only.queries if query.name in ("power_watts", "utilization_ratio"))
    )
    with Prometheus(prometheus(recorded)) as client:
        fleet = Fleet(client, few, tmp_path, STEP, Wishes(shard=share))
        assert {gpu.node for gpu in fleet.tick(START + 100 * STEP).verdicts} == set(mine)
        fleet._ingest._signals = changed(few, utilization_ratio=TYPO)
        fleet._ingest._until_sought = 0
        fleet.tick(START + 101 * STEP)
        assert fleet._ingest._nodes == frozenset(mine)


def changed(wanted: Signals, **promql: str) -> Signals:
    """The same signals with other expressions, by name."""
    return replace(
        wanted,
        queries=tuple(replace(query, promql=promql.get(query.name, query.promql)) for query in wanted.queries),
    )


def ticks(fleet: Fleet, steps: Iterable[int]) -> Iterator[Findings]:
    return (fleet.tick(START + step * STEP).verdicts for step in steps)
