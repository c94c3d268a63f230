"""The first look: how many GPUs are ill, which, and what is done about it."""

from grafana.board import Board
from grafana.panels import GPU, NONE_IS_GOOD, SCORE, SCORES, chart, heat, number, rows

WORST = f"topk(10, {SCORE})"
GROUPS = "max by (group_type, group) (stethos_group_anomaly_score)"
CAUSES = "max by (group_type, group, cause) (stethos_group_anomaly_cause)"

FIGURES = [
    number(
        "GPUs scored",
        "GPUs that have a fresh score. Fewer than the fleet: see GpuUnscored in the runbook.",
        "short",
        f"count({SCORE})",
    ),
    number(
        "GPUs anomalous",
        "GPUs whose score is at or above the threshold. They get no new jobs.",
        "short",
        f"count({SCORE} >= 1) or vector(0)",
        NONE_IS_GOOD,
    ),
    number(
        "Alerts firing",
        "All alerts that fire now, of any severity.",
        "short",
        'count(ALERTS{alertstate="firing"}) or vector(0)',
        NONE_IS_GOOD,
    ),
    number("Jobs running", "Jobs that hold GPUs now.", "short", 'sum(stethos_scheduler_jobs{state="running"})'),
    number(
        "Utilization", "Mean share of time that the GPUs were busy.", "percentunit", f"avg(gpu:utilization:ratio{GPU})"
    ),
    number("Power", "What the GPUs draw together.", "watt", f"sum(gpu:power:watts{GPU})"),
]
ILL = [
    rows(
        "Worst GPUs",
        "The ten highest scores, with the cause that the detector suspects. A click on the GPU leads to its detail.",
        "short",
        (12, 9),
        f"sort_desc(({WORST} * on (node, gpu) group_left (cause) stethos_anomaly_cause) or on (node, gpu) {WORST})",
        SCORES,
    ),
    rows(
        "What speaks against them",
        "The signals' shares in the scores of the ten worst GPUs.",
        "percentunit",
        (12, 9),
        f"sort_desc(max by (node, gpu, signal) (stethos_anomaly_contribution) and on (node, gpu) {WORST})",
    ),
    heat(
        "Scores",
        "How many GPUs have which score. 1 is the threshold; what leaves the crowd upwards is going bad.",
        "short",
        (12, 9),
        SCORE,
        0.1,
    ),
    chart(
        "Groups",
        "The highest scores of jobs, nodes and racks. Above 1 their GPUs changed together: one cause, not many.",
        "short",
        "{{group_type}} {{group}} {{cause}} :: "
        f"topk(10, {GROUPS} * on (group_type, group) group_left (cause) {CAUSES} or on (group_type, group) {GROUPS})",
        size=(12, 9),
        steps=SCORES,
    ),
    rows(
        "Alerts firing now",
        "Each has its entry in prometheus/RUNBOOK.md: meaning, check, act.",
        "short",
        (24, 8),
        'max by (alertname, severity, node, gpu, group) (ALERTS{alertstate="firing"})'
        ' or label_replace(vector(0), "alertname", "none", "", "")',
    ),
]
WORK = [
    chart(
        "GPUs by state",
        "Free, busy, cordoned (held back for their health) and unavailable, as the scheduler counts them.",
        "short",
        "{{state}} :: sum by (state) (stethos_scheduler_gpus)",
        stacked=True,
    ),
    chart(
        "Jobs",
        "Jobs by state. A queue that grows with free GPUs has a shape that fits nowhere.",
        "short",
        '{{state}} :: sum by (state) (stethos_scheduler_jobs{state=~"queued|assigned|running"})',
    ),
    chart(
        "Utilization by model",
        "Share of time with a kernel running. It says busy, not useful.",
        "percentunit",
        f"{{{{model}}}} :: avg by (model) (gpu:utilization:ratio{GPU})",
    ),
    chart(
        "Power by rack",
        "What the GPUs of a rack draw together.",
        "watt",
        f"{{{{rack}}}} :: sum by (rack) (gpu:power:watts{GPU})",
    ),
    chart(
        "Hottest GPU of each node",
        "A node above the others at equal load is cooled worse than they are.",
        "celsius",
        f"{{{{node}}}} :: max by (node) (gpu:temperature:celsius{GPU})",
    ),
    chart(
        "GPUs held back",
        "GPUs over a tenth of whose time is lost to heat or to their power limit, or that are under a power brake.",
        "short",
        f"heat :: count(gpu:throttle_thermal:ratio{GPU} > 0.1) or vector(0)",
        f"power limit :: count(gpu:throttle_power:ratio{GPU} > 0.1) or vector(0)",
        f"power brake :: count(gpu:power_brake:bool{GPU} > 0) or vector(0)",
    ),
]
TELEMETRY = [
    number(
        "Nodes that do not answer",
        "Nodes that Prometheus cannot scrape.",
        "short",
        'count(up{node!=""} == 0) or vector(0)',
        NONE_IS_GOOD,
        size=(6, 7),
    ),
    chart(
        "Age of the readings",
        "The oldest readings of any exporter. Above 60 s is an alert.",
        "s",
        'oldest :: max(stethos_exporter_reading_age_seconds{node!=""})',
        size=(9, 7),
        steps=((None, "green"), (60.0, "red")),
    ),
    chart(
        "Scrapes",
        "How long Prometheus takes to read a target; the timeout is 4 s.",
        "s",
        "slowest {{job}} :: max by (job) (scrape_duration_seconds)",
        size=(9, 7),
    ),
]

BOARD = Board(
    "fleet",
    "Stethos fleet",
    "The ill GPUs, what speaks against them, and the loop around them.",
    (("Now", FIGURES), ("What is ill", ILL), ("Work", WORK), ("Telemetry", TELEMETRY)),
)
