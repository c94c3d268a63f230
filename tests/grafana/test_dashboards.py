"""The dashboards as Grafana would load them; its own rendering is not available here. The rules of grafana's
dashboard-linter are checked too, but for template-job, template-instance, target-job and target-instance: here nodes
and GPUs are told apart by the labels `node` and `gpu`, whichever job scrapes them."""

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import yaml

from grafana import build
from tests.prometheus.servers import check
from tests.series import DASHBOARDS, ROOT, panels, plain

PANELS = [pytest.param(panel, id=f"{file}: {panel['title']}") for file, panel in panels()]
BOARDS = [pytest.param(json.loads(file.read_text()), id=file.name) for file in DASHBOARDS]
SOURCE = {"type": "prometheus", "uid": "$datasource"}
CURRENT = {"heatmap", "stat", "state-timeline", "table", "timeseries"}

Json = dict[str, Any]


def test_committed_json_is_what_the_source_builds() -> None:
    assert {file.stem for file in DASHBOARDS} == {board.name for board in build.BOARDS}
    for board in build.BOARDS:
        committed = (build.FOLDER / f"{board.name}.json").read_text()
        assert committed == board.encode(), "run `python -m grafana.build` and commit the result"


def test_dashboards_are_told_apart() -> None:
    boards = [json.loads(file.read_text()) for file in DASHBOARDS]
    for key in ("uid", "title", "description"):
        assert len({board[key] for board in boards}) == len(boards)


@pytest.mark.parametrize("board", BOARDS)
def test_a_dashboard_has_its_variables_links_and_annotations(board: Json) -> None:
    source, *queried = board["templating"]["list"]
    assert (source["name"], source["label"], source["type"]) == ("datasource", "Data source", "datasource")
    assert [variable["name"] for variable in queried] == ["model", "node", "gpu"]
    for variable in queried:
        assert (variable["multi"], variable["includeAll"], variable["allValue"]) == (True, True, ".*")
        assert variable["refresh"] == 2, "reads its values anew when the time range changes"
        assert variable["datasource"] == SOURCE
    assert board["editable"] is False
    assert board["schemaVersion"] >= 39
    (link,) = board["links"]
    assert link["tags"] == ["stethos"]
    assert "stethos" in board["tags"]
    assert link["includeVars"]
    assert link["keepTime"]
    assert [each["name"] for each in board["annotations"]["list"]] == ["Alerts", "Drains", "Model promotions"]
    assert all(each["datasource"] == SOURCE for each in board["annotations"]["list"])


@pytest.mark.parametrize("panel", PANELS)
def test_panel_explains_itself(panel: Json) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"]
    assert defaults["noValue"], "what is absent must not look like a healthy 0"
    levels = [step["value"] for step in defaults["thresholds"]["steps"]]
    assert levels[0] is None
    assert all(low < high for low, high in pairwise(levels[1:]))
    assert panel["type"] in CURRENT
    assert panel["targets"]
    for each in (panel, *panel["targets"]):
        assert each["datasource"] == SOURCE


@pytest.mark.parametrize("panel", PANELS)
def test_rates_are_taken_over_what_the_zoom_asks_for(panel: Json) -> None:
    """Growth over a fixed time, as in a day, is a figure of its own; a rate's window has to follow the step."""
    for target in panel["targets"]:
        windows = re.findall(r"\b(?:rate|irate)\([^[]*\[([^]]+)\]", target["expr"])
        assert set(windows) <= {"$__rate_interval"}


def test_links_lead_to_dashboards_that_there_are_with_variables_that_they_have() -> None:
    boards = {json.loads(file.read_text())["uid"]: json.loads(file.read_text()) for file in DASHBOARDS}
    urls = re.findall(r'"url": "(/d/[^"]+)"', "".join(file.read_text() for file in DASHBOARDS))
    assert urls
    for url in {url.replace("${__url_time_range}", "from=0") for url in urls}:
        parts = urlsplit(url)
        board = boards[parts.path.removeprefix("/d/")]
        names = {variable["name"] for variable in board["templating"]["list"]}
        assert {key.removeprefix("var-") for key, _ in parse_qsl(parts.query) if key != "from"} <= names


@pytest.mark.parametrize("board", BOARDS)
def test_panels_and_rows_have_a_number_of_their_own(board: Json) -> None:
    numbers = [panel["id"] for panel in board["panels"]]
    assert numbers == sorted(set(numbers) - {0})


@pytest.mark.parametrize("board", BOARDS)
def test_panels_do_not_overlap(board: Json) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert cells
        assert not cells & taken, panel["title"]
        taken |= cells


def test_expressions_parse(tmp_path: Path) -> None:
    expressions = {target["expr"] for _, panel in panels() for target in _targets(panel)}
    marks = {each["expr"] for file in DASHBOARDS for each in json.loads(file.read_text())["annotations"]["list"]}
    rules = [
        {"record": f"panel:{number}", "expr": plain(expression)}
        for number, expression in enumerate(expressions | marks)
    ]
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


def _targets(panel: Json) -> list[dict[str, str]]:
    targets: list[dict[str, str]] = panel["targets"]
    return targets
