"""The report as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

_COLUMNS = {
    "vus_pr": "VUS-PR",
    "vus_pr_difference": "over one-hop",
    "auc_pr": "AUC-PR",
    "auc_roc": "AUC-ROC",
    "oracle_f1": "F1*",
    "affiliation_f1": "Affil.*",
    "point_adjusted_f1": "PA-F1*",
}
_BUDGETS = {
    "event_recall_1_per_day": "@1/day",
    "event_recall_0.1_per_day": "@0.1/day",
    "hit_rate_100": "Hit@100",
    "hit_rate_150": "Hit@150",
    "event_recall_1_per_1000h": "@1",
    "event_recall_0.1_per_1000h": "@0.1",
    "event_recall_1_per_1000h_with_rules": "@1+rules",
    "event_recall_0.1_per_1000h_with_rules": "@0.1+rules",
    "event_recall_shipped": "shipped",
    "event_recall_shipped_with_rules": "+rules",
    "false_alarms_per_1000h": "false/1000h",
    "false_alarms_of_gpus_per_1000h": "of GPUs",
    "median_delay_steps": "delay",
    "cause_right": "cause",
    "group_alarm_share": "one group",
    "quiet_gpu_hours": "quiet h",
    "quiet_false_alarms_per_1000h": "quiet f/1000h",
    "quiet_false_alarms_of_gpus_per_1000h": "quiet of GPUs",
}
_NOTES = """\
Mean [95 % bootstrap interval]. * oracle: the best threshold by the labels. PA-F1 and Affil. are high for a random
score too: compare with it only. @B: share of events found at B false alarms (per entity-day; of fleets per 1,000
GPU-hours), alarms counted in fixed bins, one threshold, chosen on the test scores: an upper bound, the same for all.
shipped: at a score of 1, chosen by nobody. delay: median steps to the first alarm on sudden faults, at a score of 1."""


def text(report: Mapping[str, object]) -> str:
    """Two tables and what they mean."""
    return "\n".join(_lines(report))


def _lines(report: Mapping[str, object]) -> Iterator[str]:
    methods = cast(Mapping[str, Mapping[str, object]], report["methods"])
    yield (
        f"{report['data']}: {report['events']} events in {report['entity_hours']:.0f} entity-hours, base rate "
        f"{report['base_rate']:.4f}, step {report['step_seconds']:g} s, buffer {report['buffer_steps']} steps, "
        f"seeds {', '.join(map(str, cast(list[int], report['seeds'])))}"
    )
    yield ""
    yield from _table(methods, _COLUMNS, {"train_seconds": "train s", "score_seconds": "score s"})
    yield ""
    yield from _table(methods, _BUDGETS, {})
    yield ""
    yield _NOTES


def _table(
    methods: Mapping[str, Mapping[str, object]], columns: Mapping[str, str], plain: Mapping[str, str]
) -> Iterator[str]:
    shown = {key: title for key, title in {**columns, **plain}.items() if any(key in each for each in methods.values())}
    rows = [["method", *shown.values()]]
    rows += [[name, *(_cell(figures.get(key)) for key in shown)] for name, figures in _ranked(methods)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _ranked(methods: Mapping[str, Mapping[str, object]]) -> list[tuple[str, Mapping[str, object]]]:
    def vus_pr(item: tuple[str, Mapping[str, object]]) -> float:
        return cast(Mapping[str, float | None], item[1]["vus_pr"])["mean"] or 0.0

    return sorted(methods.items(), key=vus_pr, reverse=True)


def _cell(figure: object) -> str:
    if figure is None:
        return "-"
    if isinstance(figure, Mapping):
        if figure["mean"] is None:
            return "-"
        mean, low, high = (float(figure[key]) for key in ("mean", "low", "high"))
        digits = 3 if abs(mean) < 10 else 0
        return f"{mean:.{digits}f} [{low:.{digits}f} {high:.{digits}f}]"
    return f"{float(cast(float, figure)):.1f}"
