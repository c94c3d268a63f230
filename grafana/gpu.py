"""All about the selected GPUs: the score and what makes it, then each signal."""

from grafana.board import Board
from grafana.panels import GPU, HEAT, NAME, NONE_IS_GOOD, SCORE, SCORES, SELECTED, chart, number, rows, timeline

PLACE = '{node=~"$node", gpu=~"$gpu"}'
EITHER = ((None, "green"), (0.01, "yellow"), (0.1, "red"))

VERDICT = [
    number(
        "Worst score", "The highest score of the selected GPUs; 1 is the threshold.", "short", f"max({SCORE})", SCORES
    ),
    number(
        "Hottest",
        "The highest temperature of the selected GPUs.",
        "celsius",
        f"max(gpu:temperature:celsius{GPU})",
        HEAT,
    ),
    number("Busy", "Mean share of time with a kernel running.", "percentunit", f"avg(gpu:utilization:ratio{GPU})"),
    number("Power", "What the selected GPUs draw together.", "watt", f"sum(gpu:power:watts{GPU})"),
    number(
        "XIDs in a day",
        "Errors that the driver reported within a day. The table below has the codes.",
        "short",
        f"sum(increase(gpu:xid_errors:total{PLACE}[1d])) or vector(0)",
        NONE_IS_GOOD,
    ),
    number(
        "Uncorrected in a day",
        "Memory errors within a day that ECC could not correct.",
        "short",
        f"sum(increase(gpu:ecc_uncorrected:total{GPU}[1d])) or vector(0)",
        NONE_IS_GOOD,
    ),
    chart(
        "Score",
        "0 and up; at 1 the GPU gets no new work. No line: no opinion.",
        "short",
        f"{NAME} :: {SCORE}",
        steps=SCORES,
    ),
    chart(
        "What makes the score",
        "Each signal's share of the score, for the leading signals.",
        "short",
        "{{node}} / {{gpu}} {{signal}} :: "
        f"max by (node, gpu, signal) (stethos_anomaly_contribution{PLACE} and {SELECTED})"
        f" * on (node, gpu) group_left () max by (node, gpu) (stethos_anomaly_score{PLACE})",
        stacked=True,
    ),
    rows(
        "Job",
        "What runs there now, by the scheduler or by dcgm-exporter's own label.",
        "short",
        (12, 6),
        f'max by (node, gpu, job) (gpu:job:info{PLACE}) or label_replace(vector(0), "job", "none", "", "")',
    ),
    rows(
        "Cause",
        "What the leading signal of an anomalous GPU points to.",
        "short",
        (12, 6),
        f"max by (node, gpu, cause) (stethos_anomaly_cause{PLACE})"
        ' or label_replace(vector(0), "cause", "none", "", "")',
    ),
]
SIGNALS = [
    chart(
        "Temperature",
        "A GPU above its peers at equal load is cooled worse than they are.",
        "celsius",
        f"{NAME} :: gpu:temperature:celsius{GPU}",
        f"{NAME} memory :: gpu:memory_temperature:celsius{GPU}",
    ),
    chart(
        "Power and its limit",
        "Follows the load. Busy at idle power is a hang; a flat top is the limit.",
        "watt",
        f"{NAME} :: gpu:power:watts{GPU}",
        f"{NAME} limit :: gpu:power_limit:watts{GPU}",
    ),
    chart(
        "Utilization",
        "Share of time with a kernel running, and of its SMs and tensor cores at work. Busy is not useful.",
        "percentunit",
        f"{NAME} busy :: gpu:utilization:ratio{GPU}",
        f"{NAME} SMs :: gpu:sm_active:ratio{GPU}",
        f"{NAME} tensor :: gpu:tensor_active:ratio{GPU}",
    ),
    chart(
        "Clocks",
        "They fall under heat and power limits. One of a job below the others slows all of them.",
        "hertz",
        f"{NAME} SM :: gpu:sm_clock:hertz{GPU}",
        f"{NAME} memory :: gpu:memory_clock:hertz{GPU}",
    ),
    chart(
        "Memory used",
        "Fill of the framebuffer. A steady rise within a job is a leak.",
        "percentunit",
        f"{NAME} :: gpu:memory_used:ratio{GPU}",
    ),
    chart(
        "Room to the thermal limit",
        "Degrees left until the GPU slows itself down.",
        "celsius",
        f"{NAME} :: gpu:temperature_margin:celsius{GPU}",
    ),
]
THROTTLING = [
    timeline(
        "Throttling",
        "What holds the clocks down: share of time for heat and for the power limit, yes or no for the rest.",
        "percentunit",
        (24, 12),
        EITHER,
        f"{NAME} heat :: gpu:throttle_thermal:ratio{GPU}",
        f"{NAME} power limit :: gpu:throttle_power:ratio{GPU}",
        f"{NAME} thermal slowdown :: gpu:thermal_slowdown:bool{GPU}",
        f"{NAME} power brake :: gpu:power_brake:bool{GPU}",
    )
]
RELIABILITY = [
    rows(
        "XIDs in a day",
        "How often the driver reported which error; the runbook's GpuFatalXid says what the codes mean.",
        "short",
        (12, 8),
        f"sort_desc(sum by (node, gpu, xid) (increase(gpu:xid_errors:total{PLACE}[1d])) > 0)"
        ' or label_replace(vector(0), "xid", "none", "", "")',
    ),
    rows(
        "XIDs last seen",
        "When each error came last.",
        "dateTimeFromNow",
        (12, 8),
        f"sort_desc(max by (node, gpu, xid) (gpu:xid_seen:timestamp_seconds{PLACE}) * 1000)"
        ' or label_replace(vector(0), "xid", "none", "", "")',
    ),
    chart(
        "Corrected memory errors",
        "Errors per second that ECC corrected. A rate that grows comes before the other kind.",
        "cps",
        f"{NAME} :: rate(gpu:ecc_corrected:total{GPU}[$__rate_interval])",
    ),
    chart(
        "Memory out of use",
        "Rows remapped so far; a pending remapping waits for a reset, a failed one has no spare row left.",
        "short",
        f"{NAME} remapped :: gpu:rows_remapped:total{GPU}",
        f"{NAME} pending :: gpu:row_remap_pending:bool{GPU}",
        f"{NAME} failed :: gpu:row_remap_failed:bool{GPU}",
    ),
]
INTERCONNECT = [
    chart("NVLink", "What goes over all links together.", "Bps", f"{NAME} :: gpu:nvlink:bytes_per_second{GPU}"),
    chart(
        "NVLink errors",
        "Replays, recoveries and CRC errors per second. A sound link has none.",
        "cps",
        f"{NAME} :: rate(gpu:nvlink_errors:total{GPU}[$__rate_interval])",
    ),
    chart(
        "PCIe",
        "Bytes from and to the host.",
        "Bps",
        f"{NAME} out :: gpu:pcie_tx:bytes_per_second{GPU}",
        f"{NAME} in :: gpu:pcie_rx:bytes_per_second{GPU}",
    ),
    chart(
        "PCIe link",
        "Share of the lanes in use (an idle link may train down), and transfers repeated per second.",
        "percentunit",
        f"{NAME} lanes :: gpu:pcie_width:ratio{GPU}",
        f"{NAME} repeats :: rate(gpu:pcie_replay:total{GPU}[$__rate_interval])",
    ),
]

BOARD = Board(
    "gpu",
    "Stethos GPU detail",
    "One GPU, or a few side by side: the score, what makes it, and every signal.",
    (
        ("Verdict", VERDICT),
        ("Signals", SIGNALS),
        ("Throttling", THROTTLING),
        ("Errors and memory", RELIABILITY),
        ("Interconnect", INTERCONNECT),
    ),
)
