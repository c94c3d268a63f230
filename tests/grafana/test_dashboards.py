"""The dashboards as Grafana would load them; its own rendering is not available here."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from grafana import build
from tests.prometheus.servers import check
from tests.series import DASHBOARDS, ROOT, panels, plain

PANELS = [pytest.param(panel, id=f"{file}: {panel['title']}") for file, panel in panels()]

Panel = dict[str, Any]


def test_committed_json_is_what_the_source_builds() -> None:
    assert build.FILE.read_text() == build.fleet(), "run `python grafana/build.py` and commit the result"


def test_dashboards_are_told_apart() -> None:
    boards = [json.loads(file.read_text()) for file in DASHBOARDS]
    assert boards
    for key in ("uid", "title"):
        assert len({board[key] for board in boards}) == len(boards)
    assert all(board["templating"]["list"][0]["name"] == "datasource" for board in boards)


@pytest.mark.parametrize("panel", PANELS)
def test_panel_explains_itself(panel: Panel) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["fieldConfig"]["defaults"]["noValue"], "what is absent must not look like a healthy 0"
    assert panel["type"] in {"stat", "state-timeline", "table", "timeseries"}, "no Angular panels"
    assert panel["targets"]
    for each in (panel, *panel["targets"]):
        assert each["datasource"] == {"type": "prometheus", "uid": "$datasource"}


def test_panels_do_not_overlap() -> None:
    for file in DASHBOARDS:
        taken: set[tuple[int, int]] = set()
        for panel in json.loads(file.read_text())["panels"]:
            place = panel["gridPos"]
            assert place["x"] + place["w"] <= 24
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken, panel["title"]
            taken |= cells


def test_expressions_parse(tmp_path: Path) -> None:
    expressions = {target["expr"] for _, panel in panels() for target in _targets(panel)}
    rules = [{"record": f"panel:{number}", "expr": plain(expression)} for number, expression in enumerate(expressions)]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    check("promtool", "check", "rules", file)


def test_provisioning_is_complete() -> None:
    provisioning = ROOT / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "stethos.yml").read_text())["providers"]
    assert (source["uid"], source["type"], source["url"]) == ("prometheus", "prometheus", "$PROMETHEUS_URL")
    assert provider["options"]["path"] == "$DASHBOARDS"
    for runner in ("scripts/grafana", "docker-compose.yml"):
        text = (ROOT / runner).read_text()
        assert "PROMETHEUS_URL" in text
        assert "DASHBOARDS" in text


def _targets(panel: Panel) -> list[dict[str, str]]:
    targets: list[dict[str, str]] = panel["targets"]
    return targets
