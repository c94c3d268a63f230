"""The configuration, the rules and their tests, checked by the servers' own tools."""

import csv
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.prometheus.servers import CONFIGURATION, check, program

HERE = Path(__file__).parent
RULE_FILES = sorted([*CONFIGURATION.glob("rules/*.yml"), *CONFIGURATION.glob("alerts/*.yml")])
#: The dashboards that alerts may link to.
DASHBOARDS = {f"/d/stethos-{file.stem}" for file in CONFIGURATION.parent.glob("grafana/dashboards/*.json")}
RULE_TESTS = sorted(HERE.glob("*.test.yml"))

Rule = dict[str, Any]


def rules(kind: str) -> Iterator[Rule]:
    """Every rule of the kind: `record` or `alert`."""
    for file in RULE_FILES:
        for group in yaml.safe_load(file.read_text())["groups"]:
            yield from (rule for rule in group["rules"] if kind in rule)


ALERTS = {rule["alert"]: rule for rule in rules("alert")}


def test_configuration() -> None:
    check("promtool", "check", "config", "--syntax-only", CONFIGURATION / "prometheus.yml")


def test_alertmanager_configuration() -> None:
    check("amtool", "check-config", CONFIGURATION / "alertmanager.yml")


@pytest.mark.parametrize("file", RULE_FILES, ids=lambda file: file.name)
def test_rules(file: Path) -> None:
    check("promtool", "check", "rules", "--lint-fatal", file)


@pytest.mark.parametrize("file", RULE_TESTS, ids=lambda file: file.name)
def test_behaviour(file: Path) -> None:
    check("promtool", "test", "rules", file)


def test_each_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    fires: set[str] = set()
    silent: set[str] = set()
    for file in RULE_TESTS:
        for case in yaml.safe_load(file.read_text())["tests"]:
            for expected in case.get("alert_rule_test", []):
                (fires if expected["exp_alerts"] else silent).add(expected["alertname"])
    assert fires == silent == set(ALERTS)


def test_each_recorded_series_has_a_case() -> None:
    tested = {
        expected["expr"]
        for file in RULE_TESTS
        for case in yaml.safe_load(file.read_text())["tests"]
        for expected in case.get("promql_expr_test", [])
    }
    assert {rule["record"] for rule in rules("record")} - tested == set()


@pytest.mark.parametrize("name", ALERTS)
def test_alert_says_what_how_bad_and_what_to_do(name: str) -> None:
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    assert "{{" not in alert["annotations"]["summary"], "the summary is one sentence for all of its kind"
    assert alert["annotations"]["description"].endswith(".")
    assert alert["annotations"]["runbook_url"] == f"prometheus/RUNBOOK.md#{name.lower()}"
    assert alert["annotations"]["dashboard"].split("?")[0] in DASHBOARDS
    assert alert["labels"].get("action", "observe") in {"observe", "cordon", "drain"}
    assert "action" in alert["labels"] or alert["labels"]["severity"] != "critical" or "gpu" not in alert["expr"]


def codes(name: str) -> set[str]:
    """The XIDs that an alert's expression names, by label and by value."""
    expression = ALERTS[name]["expr"]
    return {code for named in re.findall(r'xid=~"([\d|]+)"', expression) for code in named.split("|")} | set(
        re.findall(r"gpu:xid:code == (\d+)", expression)
    )


def test_the_codes_of_the_alerts_are_those_of_the_catalogue() -> None:
    with (CONFIGURATION.parent / "exporters" / "xid.csv").open() as file:
        catalogue = list(csv.DictReader(file))
    no_work = {row["code"] for row in catalogue if row["schedule"] in ("no", "no_multi_gpu")}
    watched = {row["code"] for row in catalogue if row["class"] != "unused"} & {
        row["code"] for row in catalogue if row["schedule"] in ("watch", "drain", "no_vgpu", "follow_action")
    }
    assert codes("GpuFatalXid") == no_work
    assert codes("GpuXidWarning") == watched


def routed(file: Path, **labels: str) -> list[str]:
    """The receivers of an alert with these labels."""
    found = subprocess.run(
        [
            program("amtool"),
            "config",
            "routes",
            "test",
            f"--config.file={file}",
            *(f"{k}={v}" for k, v in labels.items()),
        ],
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    )
    return found.stdout.strip().split(",")


def test_everything_goes_to_the_scheduler_and_to_nobody_unasked() -> None:
    shipped = CONFIGURATION / "alertmanager.yml"
    assert routed(shipped, alertname="GpuAnomalous", severity="warning") == ["scheduler"]
    assert routed(shipped, alertname="DetectorStale", severity="critical") == ["scheduler"]


def test_each_receiver_for_people_is_taken_into_use_by_its_line(tmp_path: Path) -> None:
    text = (CONFIGURATION / "alertmanager.yml").read_text()
    used = tmp_path / "alertmanager.yml"
    used.write_text(re.sub(r"^    # - \{", "    - {", text, flags=re.MULTILINE))
    check("amtool", "check-config", used)
    assert routed(used, severity="critical") == ["scheduler", "pagerduty", "slack", "email", "webhook"]
    assert routed(used, severity="warning") == ["scheduler", "slack", "webhook"]
    assert routed(used, severity="info") == ["scheduler", "webhook"]


def test_runbook_has_each_alert_and_no_other() -> None:
    entries = re.split(r"^### ", (CONFIGURATION / "RUNBOOK.md").read_text(), flags=re.MULTILINE)[1:]
    assert [entry.split("\n", 1)[0] for entry in entries] == list(ALERTS)
    for entry in entries:
        assert re.findall(r"^\*\*(\w+)\.\*\* ", entry, flags=re.MULTILINE) == ["Meaning", "Check", "Act"]
