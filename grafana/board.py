"""What every dashboard has: its variables, its links to the others, and what is marked on its time axis."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders.dashboard import (
    Dashboard,
    DashboardLink,
    DatasourceVariable,
    QueryVariable,
    Row,
)
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    Panel,
    VariableRefresh,
    VariableSort,
)

from grafana.panels import SOURCE

TAG = "stethos"
VARIABLES = (
    ("model", "Model", "label_values(gpu:temperature:celsius, model)"),
    ("node", "Node", 'label_values(gpu:temperature:celsius{model=~"$model"}, node)'),
    ("gpu", "GPU", 'label_values(gpu:temperature:celsius{model=~"$model", node=~"$node"}, gpu)'),
)
# In the form of Grafana's Prometheus data source; the SDK does not know its text fields.
ANNOTATIONS = (
    ("Alerts", "red", 'max by (alertname, severity, node, gpu) (ALERTS{alertstate="firing"})', "{{node}} {{gpu}}"),
    (
        "Drains",
        "orange",
        'sum(stethos_scheduler_nodes{state=~"draining|drained"})'
        ' > sum(stethos_scheduler_nodes{state=~"draining|drained"} offset 30s)',
        "A node was drained",
    ),
    (
        "Model promotions",
        "blue",
        'stethos_detector_model_info{stage="model"} unless on (version) stethos_detector_model_info offset 30s',
        "{{version}}",
    ),
)


@dataclass(frozen=True, slots=True)
class Board:
    """A dashboard: sections of panels that flow from left to right."""

    name: str
    title: str
    description: str
    sections: Sequence[tuple[str, Sequence[Builder[Panel]]]]
    since: str = "now-30m"

    def encode(self) -> str:
        """The dashboard as JSON, the same for the same source."""
        made = Dashboard(self.title).uid(f"stethos-{self.name}").tags([TAG, "gpu"]).readonly()
        made.description(self.description).time(self.since, "now").refresh("5s").timezone("browser")
        made.tooltip(DashboardCursorSync.CROSSHAIR)
        made.link(
            DashboardLink("Stethos")
            .type(DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(True)
            .keep_time(True)
            .include_vars(True)
        )
        for variable in variables():
            made.with_variable(variable)
        for heading, members in self.sections:
            made.with_row(Row(heading))
            for member in members:
                made.with_panel(member)
        plain = json.loads(JSONEncoder(sort_keys=True).encode(made.build()))
        # The SDK gives every row the number 0 and panels none; Grafana wants them apart.
        for number, each in enumerate(plain["panels"], 1):
            each["id"] = number
        plain["annotations"] = {"list": [annotation(*each) for each in ANNOTATIONS]}
        return json.dumps(plain, sort_keys=True, indent=2) + "\n"


def variables() -> list[DatasourceVariable | QueryVariable]:
    source = DatasourceVariable("datasource").label("Data source").type("prometheus")
    queried = [QueryVariable(name).label(label).query(query) for name, label, query in VARIABLES]
    for variable in queried:
        variable.datasource(SOURCE).multi(True).include_all(True).all_value(".*")
        variable.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).sort(VariableSort.NATURAL_ASC)
    return [source, *queried]


def annotation(name: str, colour: str, expression: str, text: str) -> dict[str, object]:
    source = {"type": SOURCE.type_val, "uid": SOURCE.uid}
    title = "{{alertname}}" if name == "Alerts" else name
    fields: dict[str, object] = {"name": name, "datasource": source, "enable": True, "hide": False, "iconColor": colour}
    return fields | {"expr": expression, "step": "15s", "titleFormat": title, "textFormat": text}
