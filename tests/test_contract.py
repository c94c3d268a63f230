"""Metric names are the interface between the processes: whatever one of them reads, another emits or a rule records."""

import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from tests.prometheus.servers import program, running
from tests.prometheus.test_servers import free_port
from tests.series import ROOT, emitted_in, literals_in, panels, plain, read_by, rules

# Not ours, and why they can be relied on.
FOREIGN = {
    "up": "Prometheus makes it for each target",
    "scrape_duration_seconds": "Prometheus makes it for each target",
    "ALERTS": "Prometheus makes it for each active alert",
    "prometheus_rule_evaluation_failures_total": "Prometheus' own",
    "alertmanager_notifications_failed_total": "Alertmanager's own",
    "DCGM_FI_DEV_POWER_MGMT_LIMIT": "dcgm-exporter where it lacks the enforced limit",
    "DCGM_FI_DEV_BOARD_POWER_LIMIT_ENFORCED_WATTS": "dcgm-exporter from 4.9; ours has the earlier name in every mode",
    "DCGM_EXP_XID_ERRORS_TOTAL": "dcgm-exporter from 4.8.3; ours counts XIDs under a name of its own",
}
METRIC = r"\b(gpu:\w+:\w+|stethos_\w+)\b"


def wanted() -> Iterator[tuple[str, str]]:
    """Everything that is read: the name, and by whom."""
    for rule in rules():
        for name in read_by(rule["expr"]):
            yield name, rule.get("record") or rule["alert"]
    for file, panel in panels():
        for target in panel["targets"]:  # type: ignore[attr-defined]
            for name in read_by(plain(target["expr"])):
                yield name, f"{file}: {panel['title']}"
    signals = yaml.safe_load((ROOT / "detector" / "signals.yml").read_text())
    for query in [
        *(signals[each] for each in ("jobs", "islands", "software", "targets")),
        *(signal["query"] for signal in signals["signals"]),
    ]:
        for name in read_by(query):
            yield name, "detector/signals.yml"
    for path in (*ROOT.glob("detector/*.py"), ROOT / "scheduler" / "health.py"):
        source = path.read_text()
        emitted = emitted_in(source)
        for literal in literals_in(source, METRIC):
            if not emitted & {literal, f"{literal}_total", f"{literal}_count"}:
                yield from ((name, str(path.relative_to(ROOT))) for name in re.findall(METRIC, literal))


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[str]:
    """A real one without targets: enough for the scheduler to read that there are no scores."""
    url = f"http://127.0.0.1:{free_port()}"
    (tmp_path / "prometheus.yml").write_text("global: {scrape_interval: 5s}\n")
    flags = [f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"]
    with running(program("prometheus"), *flags, f"--web.listen-address={url[7:]}", log=tmp_path / "prometheus.log"):
        yield url


def names_on(*urls: str) -> set[str]:
    """The names on pages; none while they do not answer."""
    try:
        pages = [httpx.get(url).raise_for_status().text for url in urls]
    except httpx.HTTPError:
        return set()
    return {name for page in pages for name in re.findall(r"^([a-zA-Z_:][\w:]*)[{ ]", page, flags=re.MULTILINE)}


def test_everything_read_is_emitted_or_recorded(tmp_path: Path, prometheus: str) -> None:
    there = FOREIGN.keys() | {rule["record"] for rule in rules() if "record" in rule}
    # Some appear only with load, a fault or a fleet to look at; those are found where they are made.
    for package in ("exporters", "detector", "scheduler"):
        for file in (ROOT / package).rglob("*.py"):
            there |= emitted_in(file.read_text())
    exporters, scheduler = free_port(), free_port()
    python, home = (sys.executable, "-m"), ("--home", tmp_path)
    fleet = ("exporters", "synthetic", "--nodes", "1", "--gpus-per-node", "2", "--metric-names", "both")
    serve = ("scheduler", "serve", "--prometheus", prometheus, "--port", str(scheduler))
    pages = [f"http://127.0.0.1:{exporters}{path}" for path in ("/metrics", "/nodes/node-01/metrics")]
    with (
        running(*python, *fleet, "--port", str(exporters), *home, log=tmp_path / "exporters.log"),
        running(*python, *serve, *home, log=tmp_path / "scheduler.log"),
    ):
        deadline = time.monotonic() + 30
        while missing := [f"{name} (read by {reader})" for name, reader in wanted() if name not in there]:
            if time.monotonic() > deadline:
                pytest.fail("\n".join(sorted(set(missing))))
            time.sleep(0.3)
            there |= names_on(*pages) | names_on(f"http://127.0.0.1:{scheduler}/metrics")


def test_nothing_is_allowed_that_nobody_reads() -> None:
    assert FOREIGN.keys() - {name for name, _ in wanted()} == set()


@pytest.mark.parametrize(
    ("promql", "names"),
    [
        ('max by (node, gpu) (a:b:c{node=~"x"} * 1e6 or b) >= 1', {"a:b:c", "b"}),
        ('increase(errors_total[5m] offset 1h) > 0 and on (node) up{job="nodes"} == 1', {"errors_total", "up"}),
        ('label_replace({__name__=~"x|y", j!=""}, "job", "$1", "j", "(.+)")', {"x", "y"}),
        ("time() - max(t) > 30 or absent(t)", {"t"}),
        ("(s * on (node) group_left (cause) c) or vector(0)", {"s", "c"}),
    ],
)
def test_names_in_an_expression(promql: str, names: set[str]) -> None:
    assert read_by(promql) == names
