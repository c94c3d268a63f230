"""The kinds of panels: what each has in common on all dashboards."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from grafana_foundation_sdk.builders import common, heatmap, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.builders.dashboard import DashboardLink, ThresholdsConfig
from grafana_foundation_sdk.models.common import (
    GraphThresholdsStyleMode,
    HeatmapCalculationMode,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    Threshold,
    ThresholdsMode,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = DataSourceRef(type_val="prometheus", uid="$datasource")
#: What the variables select of a recorded GPU series, and of a score, which does not know the model.
GPU = '{node=~"$node", gpu=~"$gpu", model=~"$model"}'
SELECTED = f"on (node, gpu) last_over_time(gpu:temperature:celsius{GPU}[10m])"
SCORE = f'max by (node, gpu) (stethos_anomaly_score{{node=~"$node", gpu=~"$gpu"}} and {SELECTED})'
NAME = "{{node}} / {{gpu}}"

Steps = Sequence[tuple[float | None, str]]
PLAIN: Steps = ((None, "text"),)
SCORES: Steps = ((None, "green"), (0.7, "yellow"), (1.0, "red"))
NONE_IS_GOOD: Steps = ((None, "green"), (1.0, "red"))
HEAT: Steps = ((None, "green"), (80.0, "yellow"), (90.0, "red"))

Kind = TypeVar("Kind", heatmap.Panel, stat.Panel, statetimeline.Panel, table.Panel, timeseries.Panel)
Size = tuple[int, int]


def panel(
    kind: Kind,
    title: str,
    why: str,
    unit: str,
    size: Size,
    queries: Sequence[str],
    steps: Steps,
    form: PromQueryFormat | None = None,
) -> Kind:
    """What every panel has. `size` is in 24ths of the width and in rows; a query is PromQL, or "legend :: PromQL"."""
    kind.title(title).description(why).unit(unit).datasource(SOURCE).no_value("n/a").span(size[0]).height(size[1])
    levels = [Threshold(value=value, color=colour) for value, colour in steps]
    kind.thresholds(ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(levels))
    for reference, query in zip("ABCDEFGHIJKL", queries, strict=False):
        legend, _, expression = query.rpartition(" :: ")
        target = prometheus.Dataquery().expr(expression).legend_format(legend or "__auto").ref_id(reference)
        if form:
            target = target.format(form)
        if form == PromQueryFormat.TABLE:
            target = target.instant()
        kind.with_target(target.datasource(SOURCE))
    return kind


def number(title: str, why: str, unit: str, query: str, steps: Steps = PLAIN, size: Size = (4, 4)) -> stat.Panel:
    """One figure."""
    return panel(stat.Panel(), title, why, unit, size, [query], steps)


def chart(
    title: str, why: str, unit: str, *queries: str, size: Size = (12, 8), steps: Steps = PLAIN, stacked: bool = False
) -> timeseries.Panel:
    """Lines over time, with the last values to read off; thresholds are drawn, and a GPU's line leads to its detail."""
    kind = panel(timeseries.Panel(), title, why, unit, size, queries, steps)
    legend = common.VizLegendOptions().display_mode(LegendDisplayMode.TABLE).placement(LegendPlacement.RIGHT)
    kind.legend(legend.calcs(["lastNotNull", "max"]).show_legend(True).sort_by("Last *").sort_desc(True))
    kind.tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    if steps is not PLAIN:
        kind.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED))
    if stacked:
        kind.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    if any(NAME in query for query in queries):
        kind.data_links([detail("${__field.labels.node}", "${__field.labels.gpu}")])
    return kind.show_points(VisibilityMode.NEVER).fill_opacity(30 if stacked else 0).line_width(1)


def timeline(title: str, why: str, unit: str, size: Size, steps: Steps, *queries: str) -> statetimeline.Panel:
    """One row per series, coloured by level; a gap is a gap."""
    kind = statetimeline.Panel().show_value(VisibilityMode.NEVER).merge_values(True).row_height(0.9).line_width(0)
    kind.data_links([detail("${__field.labels.node}", "${__field.labels.gpu}")])
    return panel(kind, title, why, unit, size, queries, steps)


def heat(title: str, why: str, unit: str, size: Size, query: str, width: float) -> heatmap.Panel:
    """How many of the series lie at which level, in buckets of `width`: readable for a few GPUs and for thousands."""
    buckets = common.HeatmapCalculationBucketConfig().mode(HeatmapCalculationMode.SIZE).value(str(width))
    kind = heatmap.Panel().calculate(True).calculation(common.HeatmapCalculationOptions().y_buckets(buckets))
    kind.color(oranges()).cell_gap(1).y_axis(heatmap.YAxisConfig().unit(unit).min(0))
    return panel(kind, title, why, unit, size, [query], PLAIN)


def distribution(title: str, why: str, unit: str, size: Size, query: str) -> heatmap.Panel:
    """A histogram over time: `query` gives the growth of its buckets, by `le`."""
    kind = heatmap.Panel().calculate(False).color(oranges()).cell_gap(1).y_axis(heatmap.YAxisConfig().unit(unit))
    return panel(kind, title, why, unit, size, [f"{{{{le}}}} :: {query}"], PLAIN, PromQueryFormat.HEATMAP)


def oranges() -> heatmap.HeatmapColorOptions:
    return heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(32)


def rows(title: str, why: str, unit: str, size: Size, query: str, steps: Steps = PLAIN) -> table.Panel:
    """What holds now, as the query sorts it. A row with a node and a GPU leads to their detail."""
    kind = panel(table.Panel(), title, why, unit, size, [query], steps, PromQueryFormat.TABLE)
    return arranged(kind, {"Value": "Value"})


def arranged(kind: table.Panel, names: Mapping[str, str]) -> table.Panel:
    """Columns by the names that people read, without those that say nothing."""
    hidden = {"Time": True, "__name__": True, "instance": True, "job": "job" not in names}
    options = {"excludeByName": hidden, "renameByName": dict(names)}
    kind.with_transformation(DataTransformerConfig(id_val="organize", options=options))
    link = detail("${__data.fields.node}", "${__data.fields.gpu}").build()
    return kind.override_by_name("gpu", [DynamicConfigValue(id_val="links", value=[link])])


def detail(node: str, gpu: str) -> DashboardLink:
    """The way from a GPU's mark to all about it."""
    url = f"/d/stethos-gpu?var-node={node}&var-gpu={gpu}&${{__url_time_range}}"
    return DashboardLink("GPU detail").type(DashboardLinkType.LINK).url(url)
