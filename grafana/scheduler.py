"""What the scheduler does with jobs and with what it knows of the GPUs' health."""

from grafana.board import Board
from grafana.panels import NONE_IS_GOOD, chart, distribution, number


def quantile(share: float, histogram: str, by: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({histogram}_bucket[$__rate_interval])))"


NOW = [
    number("Waiting", "Jobs in the queue.", "short", 'sum(stethos_scheduler_jobs{state="queued"})', size=(6, 4)),
    number(
        "Longest wait",
        "How long the oldest job in the queue waits. Half an hour is an alert.",
        "s",
        "max(stethos_scheduler_queue_oldest_seconds)",
        ((None, "green"), (600.0, "yellow"), (1800.0, "red")),
        (6, 4),
    ),
    number(
        "Breakers open",
        "Failure domains in which automation may hold no GPU more.",
        "short",
        "sum(stethos_scheduler_breaker_open)",
        NONE_IS_GOOD,
        (6, 4),
    ),
    number(
        "Age of its knowledge",
        "Time since it last read the scores. Without them it places with no opinion.",
        "s",
        "time() - max(stethos_scheduler_health_read_timestamp_seconds)",
        ((None, "green"), (30.0, "yellow"), (60.0, "red")),
        (6, 4),
    ),
]
QUEUE = [
    chart(
        "Queue",
        "Jobs that wait, are handed out, or run.",
        "short",
        '{{state}} :: sum by (state) (stethos_scheduler_jobs{state=~"queued|assigned|running"})',
        stacked=True,
    ),
    chart(
        "Longest wait",
        "How long the oldest job in the queue waits.",
        "s",
        "oldest :: max(stethos_scheduler_queue_oldest_seconds)",
        steps=((None, "green"), (1800.0, "red")),
    ),
    chart(
        "Ended jobs",
        "Jobs per second by how they ended.",
        "ops",
        "{{state}} :: sum by (state) (rate(stethos_scheduler_job_duration_seconds_count[$__rate_interval]))",
    ),
    chart(
        "Run time",
        "Of ended jobs, from the start of their last attempt: half of them took less, nine tenths took less.",
        "s",
        f"50 % :: {quantile(0.5, 'stethos_scheduler_job_duration_seconds')}",
        f"90 % :: {quantile(0.9, 'stethos_scheduler_job_duration_seconds')}",
    ),
]
WAITS = [
    chart(
        "Wait by priority",
        "From acceptance to the first start, of jobs that started: half of them waited less, nine tenths waited less.",
        "s",
        f"50 % {{{{priority}}}} :: {quantile(0.5, 'stethos_scheduler_job_wait_seconds', 'priority')}",
        f"90 % {{{{priority}}}} :: {quantile(0.9, 'stethos_scheduler_job_wait_seconds', 'priority')}",
    ),
    distribution(
        "Waits of all jobs",
        "How many jobs started after which wait.",
        "s",
        (12, 8),
        "sum by (le) (increase(stethos_scheduler_job_wait_seconds_bucket[$__rate_interval]))",
    ),
]
DECISIONS = [
    chart(
        "Decisions",
        "Placements per second, and shapes of jobs that fitted nowhere when they were looked at.",
        "ops",
        "{{result}} :: sum by (result) (rate(stethos_scheduler_placements_total[$__rate_interval]))",
        size=(8, 8),
    ),
    chart(
        "Why jobs fit nowhere",
        "Decisions per second against a shape of job, by what stood in the way. Of several things it is the one that "
        "waiting mends least: too large for all nodes, nodes unavailable, GPUs cordoned, kept for an older job, free "
        "GPUs fragmented, all busy.",
        "ops",
        "{{reason}} :: sum by (reason) (rate(stethos_scheduler_unplaceable_total[$__rate_interval]))",
        size=(8, 8),
        stacked=True,
    ),
    chart(
        "Time to decide",
        "One placement pass, reading and commit included.",
        "s",
        f"50 % :: {quantile(0.5, 'stethos_scheduler_placement_seconds')}",
        f"99 % :: {quantile(0.99, 'stethos_scheduler_placement_seconds')}",
        size=(8, 8),
    ),
]
HEALTH = [
    chart(
        "GPUs by health",
        "Where GPUs stand between healthy and out of service. What is on probation runs a canary job first.",
        "short",
        '{{state}} :: sum by (state) (stethos_scheduler_gpu_health{state!="healthy"})',
        stacked=True,
    ),
    chart(
        "Circuit breaker",
        "GPUs that automation holds, against the number that it may hold at once, by failure domain.",
        "short",
        "{{domain}} held :: max by (domain) (stethos_scheduler_breaker_held_gpus)",
        "{{domain}} may hold :: max by (domain) (stethos_scheduler_breaker_bound_gpus)",
    ),
    chart(
        "Nodes by state",
        "Unreachable nodes have lost their agent; their jobs are queued again.",
        "short",
        "{{state}} :: sum by (state) (stethos_scheduler_nodes)",
        stacked=True,
    ),
    chart(
        "Canaries",
        "Canary jobs within an hour of GPUs on probation, by how they ended.",
        "short",
        "{{result}} :: sum by (result) (increase(stethos_scheduler_canaries_total[1h]))",
    ),
    chart(
        "Alerts received",
        "From Alertmanager, per second; unmatched ones name a GPU that is not registered.",
        "ops",
        "{{status}} :: sum by (status) (rate(stethos_scheduler_alerts_received_total[$__rate_interval]))",
        "unmatched :: sum(rate(stethos_scheduler_alerts_unmatched_total[$__rate_interval]))",
    ),
    chart(
        "Readings of the scores",
        "Whether the last one succeeded (1), and those that failed per second.",
        "short",
        "succeeded :: min(stethos_scheduler_health_up)",
        "failed :: sum(rate(stethos_scheduler_health_read_errors_total[$__rate_interval]))",
    ),
]

BOARD = Board(
    "scheduler",
    "Stethos scheduler",
    "The queue and its waits, decisions, and how health keeps work off ill GPUs.",
    (("Now", NOW), ("Queue", QUEUE), ("Waits", WAITS), ("Decisions", DECISIONS), ("Health", HEALTH)),
)
