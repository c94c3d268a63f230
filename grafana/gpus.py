"""One row per GPU: a table of now, and the scores over time."""

from grafana_foundation_sdk.builders import table
from grafana_foundation_sdk.models.dashboard import (
    DataTransformerConfig,
    DynamicConfigValue,
    Threshold,
    ThresholdsConfig,
)
from grafana_foundation_sdk.models.dashboard import ThresholdsMode as Mode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from grafana.board import Board
from grafana.panels import GPU, HEAT, NAME, PLAIN, SCORE, SCORES, Steps, arranged, panel, timeline


def newest(series: str) -> str:
    return f"max by (node, gpu) ({series}{GPU})"


#: Column, unit, levels and query. The first brings the labels that the others do not have.
COLUMNS: list[tuple[str, str, Steps, str]] = [
    ("Temperature", "celsius", HEAT, f"max by (node, gpu, model, rack) (gpu:temperature:celsius{GPU})"),
    ("Score", "short", SCORES, SCORE),
    ("Utilization", "percentunit", PLAIN, newest("gpu:utilization:ratio")),
    ("Power", "watt", PLAIN, newest("gpu:power:watts")),
    (
        "Of the limit",
        "percentunit",
        PLAIN,
        f"max by (node, gpu) (gpu:power:watts{GPU} / on (node, gpu) gpu:power_limit:watts)",
    ),
    ("SM clock", "hertz", PLAIN, newest("gpu:sm_clock:hertz")),
    ("Memory used", "percentunit", PLAIN, newest("gpu:memory_used:ratio")),
    ("Hot", "percentunit", ((None, "text"), (0.1, "red")), newest("gpu:throttle_thermal:ratio")),
    ("Last XID", "short", ((None, "text"), (1.0, "red")), newest("gpu:xid:code")),
    ("Job", "short", PLAIN, 'max by (node, gpu, job) (gpu:job:info{node=~"$node", gpu=~"$gpu"})'),
]


def one_row_per_gpu() -> table.Panel:
    why = "Each GPU now. Hot is the share of time slowed down by heat. A click on the GPU leads to its detail."
    queries = [query for *_, query in COLUMNS]
    kind = panel(table.Panel(), "GPUs", why, "short", (24, 22), queries, PLAIN, PromQueryFormat.TABLE)
    kind.with_transformation(DataTransformerConfig(id_val="merge", options={}))
    names = {f"Value #{reference}": column for reference, (column, *_) in zip("ABCDEFGHIJKL", COLUMNS, strict=False)}
    arranged(kind, names | {"job": "job", "Value #J": "has a job"})
    for column, unit, steps, _ in COLUMNS[:-1]:
        levels = ThresholdsConfig(
            mode=Mode.ABSOLUTE, steps=[Threshold(value=value, color=colour) for value, colour in steps]
        )
        properties = [DynamicConfigValue("unit", unit), DynamicConfigValue("thresholds", levels)]
        if steps is not PLAIN:
            properties.append(DynamicConfigValue("custom.cellOptions", {"type": "color-text"}))
        kind.override_by_name(column, properties)
    kind.override_by_name("has a job", [DynamicConfigValue("custom.hidden", True)])
    return kind.filterable(True)


BOARD = Board(
    "gpus",
    "Stethos GPUs",
    "One row per GPU: all that is known of each now, and its score over time.",
    (
        ("Now", [one_row_per_gpu()]),
        (
            "Over time",
            [
                timeline(
                    "Scores by GPU",
                    "One row per GPU: green is as expected, red at or above the threshold of 1. No score is a gap.",
                    "short",
                    (24, 22),
                    SCORES,
                    f"{NAME} :: {SCORE}",
                )
            ],
        ),
    ),
)
