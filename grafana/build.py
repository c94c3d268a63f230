"""Builds dashboards/fleet.json. Run `python grafana/build.py` after a change and commit both; a test compares them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from grafana_foundation_sdk.builders import common, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, QueryVariable, ThresholdsConfig
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement, TooltipDisplayMode, VisibilityMode
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    DataTransformerConfig,
    GridPos,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

FILE = Path(__file__).parent / "dashboards" / "fleet.json"
SOURCE = DataSourceRef(type_val="prometheus", uid="$datasource")
GPU = '{node=~"$node", gpu=~"$gpu"}'
NAME = "{{node}} / {{gpu}}"

PLAIN = ((None, "text"),)
SCORE = ((None, "green"), (0.7, "yellow"), (1.0, "red"))
NONE_IS_GOOD = ((None, "green"), (1.0, "red"))

Steps = Sequence[tuple[float | None, str]]
Place = tuple[int, int, int, int]
Kind = TypeVar("Kind", stat.Panel, statetimeline.Panel, table.Panel, timeseries.Panel)


def panel(kind: Kind, title: str, why: str, unit: str, place: Place, *queries: str, steps: Steps = PLAIN) -> Kind:
    """What every panel has. `place` is x, y, width, height; a query is PromQL, or "legend :: PromQL"."""
    x, y, width, height = place
    kind.title(title).description(why).unit(unit).datasource(SOURCE).no_value("n/a")
    kind.grid_pos(GridPos(x=x, y=y, w=width, h=height))
    levels = [Threshold(value=value, color=colour) for value, colour in steps]
    kind.thresholds(ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(levels))
    for reference, query in zip("ABCDEF", queries, strict=False):
        legend, _, expression = query.rpartition(" :: ")
        target = prometheus.Dataquery().expr(expression).legend_format(legend or "__auto").ref_id(reference)
        if isinstance(kind, table.Panel):
            target = target.format(PromQueryFormat.TABLE).instant()
        kind.with_target(target.datasource(SOURCE))
    return kind


def number(title: str, why: str, unit: str, column: int, query: str, steps: Steps = PLAIN) -> stat.Panel:
    """One of the six figures at the top."""
    return panel(stat.Panel(), title, why, unit, (column * 4, 0, 4, 4), query, steps=steps)


def chart(title: str, why: str, unit: str, place: Place, *queries: str) -> timeseries.Panel:
    """Lines over time, with the last values to read off."""
    kind = panel(timeseries.Panel(), title, why, unit, place, *queries)
    legend = common.VizLegendOptions().display_mode(LegendDisplayMode.TABLE).placement(LegendPlacement.RIGHT)
    kind.legend(legend.calcs(["lastNotNull", "max"]).show_legend(True).sort_by("Last *").sort_desc(True))
    kind.tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    return kind.show_points(VisibilityMode.NEVER).fill_opacity(0).line_width(1)


def scores(place: Place) -> statetimeline.Panel:
    why = "One row per GPU, by its score: green is as expected, red at or above the threshold of 1. No score is a gap."
    kind = statetimeline.Panel().show_value(VisibilityMode.NEVER).merge_values(True).row_height(0.9).line_width(0)
    return panel(
        kind, "Scores", why, "short", place, f"{NAME} :: max by (node, gpu) (stethos_anomaly_score{GPU})", steps=SCORE
    )


def rows(title: str, why: str, unit: str, place: Place, query: str, steps: Steps = PLAIN) -> table.Panel:
    """What holds now, worst first."""
    hide = DataTransformerConfig(
        id_val="organize", options={"excludeByName": {"Time": True, "__name__": True, "instance": True, "job": True}}
    )
    return panel(table.Panel(), title, why, unit, place, query, steps=steps).with_transformation(hide)


def variables() -> list[DatasourceVariable | QueryVariable]:
    node = "label_values(gpu:temperature:celsius, node)"
    gpu = 'label_values(gpu:temperature:celsius{node=~"$node"}, gpu)'
    queried = [
        QueryVariable(name).label(label).query(query)
        for name, label, query in (("node", "Node", node), ("gpu", "GPU", gpu))
    ]
    for variable in queried:
        variable.datasource(SOURCE).multi(True).include_all(True).all_value(".+")
        variable.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).sort(VariableSort.NATURAL_ASC)
    return [DatasourceVariable("datasource").label("Data source").type("prometheus"), *queried]


WORST = f"topk(10, max by (node, gpu) (stethos_anomaly_score{GPU}))"

PANELS = [
    number(
        "GPUs scored",
        "GPUs that have a fresh score. Fewer than the fleet: see GpuUnscored in the runbook.",
        "short",
        0,
        "count(stethos_anomaly_score)",
    ),
    number(
        "GPUs anomalous",
        "GPUs whose score is at or above the threshold. They get no new jobs.",
        "short",
        1,
        "count(stethos_anomaly_score >= 1) or vector(0)",
        NONE_IS_GOOD,
    ),
    number(
        "Alerts firing",
        "All alerts that fire now, of any severity.",
        "short",
        2,
        'count(ALERTS{alertstate="firing"}) or vector(0)',
        NONE_IS_GOOD,
    ),
    number("Jobs running", "Jobs that hold GPUs now.", "short", 3, 'sum(stethos_scheduler_jobs{state="running"})'),
    number(
        "Utilization", "Mean share of time that the GPUs were busy.", "percentunit", 4, "avg(gpu:utilization:ratio)"
    ),
    number("Power", "What all GPUs draw together.", "watt", 5, "sum(gpu:power:watts)"),
    scores((0, 4, 24, 14)),
    rows(
        "Worst GPUs",
        "The ten highest scores, with the cause that the detector suspects.",
        "short",
        (0, 18, 12, 9),
        f"({WORST} * on (node, gpu) group_left (cause) stethos_anomaly_cause) or on (node, gpu) {WORST}",
        SCORE,
    ),
    rows(
        "What speaks against them",
        "The signals' shares in the scores of GPUs at or above the threshold.",
        "percentunit",
        (12, 18, 12, 9),
        f"sort_desc(stethos_anomaly_contribution{GPU} and on (node, gpu) stethos_anomaly_score >= 1)",
    ),
    chart(
        "Temperature",
        "A GPU above its peers at equal load is cooled worse than they are.",
        "celsius",
        (0, 27, 12, 9),
        f"{NAME} :: gpu:temperature:celsius{GPU}",
    ),
    chart(
        "Power",
        "Follows the load. Busy at idle power is a hang; a flat top is the limit.",
        "watt",
        (12, 27, 12, 9),
        f"{NAME} :: gpu:power:watts{GPU}",
    ),
    chart(
        "Utilization",
        "Share of time with a kernel running. It says busy, not useful.",
        "percentunit",
        (0, 36, 12, 9),
        f"{NAME} :: gpu:utilization:ratio{GPU}",
    ),
    chart(
        "SM clock",
        "Falls under heat and power limits. One of a job below the others slows all of them.",
        "hertz",
        (12, 36, 12, 9),
        f"{NAME} :: gpu:sm_clock:hertz{GPU}",
    ),
    chart(
        "Memory used",
        "Fill of the framebuffer. A steady rise within a job is a leak.",
        "percentunit",
        (0, 45, 12, 9),
        f"{NAME} :: gpu:memory_used:ratio{GPU}",
    ),
    chart(
        "Thermal throttling",
        "Share of time slowed down by heat. Above a tenth for minutes it is an alert.",
        "percentunit",
        (12, 45, 12, 9),
        f"{NAME} :: gpu:throttle_thermal:ratio{GPU}",
    ),
    chart(
        "Jobs",
        "Jobs by state. A queue that grows with free GPUs has a shape that fits nowhere.",
        "short",
        (0, 54, 12, 8),
        "{{state}} :: sum by (state) (stethos_scheduler_jobs)",
    ),
    chart(
        "GPUs in the scheduler",
        "Free, busy, cordoned (held back for their health) and unavailable.",
        "short",
        (12, 54, 12, 8),
        "{{state}} :: sum by (state) (stethos_scheduler_gpus)",
    ),
    rows(
        "Alerts firing now",
        "Each with its runbook entry in prometheus/RUNBOOK.md.",
        "short",
        (0, 62, 24, 8),
        'max by (alertname, severity, node, gpu, group) (ALERTS{alertstate="firing"})',
    ),
    chart(
        "Detector step",
        "Duration of a step's stages. Together they must stay below the step of 5 s.",
        "s",
        (0, 70, 8, 8),
        "{{stage}} :: max by (stage) (stethos_detector_tick_seconds)",
    ),
    chart(
        "Detector input",
        "Share of the expected samples that arrived. Below 80 % is an alert.",
        "percentunit",
        (8, 70, 8, 8),
        "coverage :: min(stethos_detector_input_coverage_ratio)",
    ),
    chart(
        "Age of the scores",
        "Time since the last completed step. Scores vanish when they are too old.",
        "s",
        (16, 70, 8, 8),
        "age :: time() - max(stethos_detector_last_success_timestamp_seconds)",
    ),
]


def fleet() -> str:
    """The dashboard as JSON, the same for the same source."""
    board = Dashboard("Stethos fleet").uid("stethos-fleet").tags(["stethos", "gpu"]).readonly()
    board.description("Scores of all GPUs, what speaks against the worst, and the loop around them.")
    board.time("now-30m", "now").refresh("5s").timezone("browser").tooltip(DashboardCursorSync.CROSSHAIR)
    for variable in variables():
        board.with_variable(variable)
    for each in PANELS:
        board.with_panel(each)
    return JSONEncoder(sort_keys=True, indent=2).encode(board.build()) + "\n"


if __name__ == "__main__":
    FILE.write_text(fleet())
