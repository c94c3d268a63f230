"""Whether the scores can be trusted: fresh, fed, calibrated, and by which model."""

from grafana.board import Board
from grafana.panels import chart, number, rows

COVERED = ((None, "red"), (0.8, "yellow"), (0.95, "green"))
FRESH = ((None, "green"), (15.0, "yellow"), (30.0, "red"))

NOW = [
    number(
        "Age of the scores",
        "Time since the last completed step. Scores vanish when they are too old.",
        "s",
        "time() - max(stethos_detector_last_success_timestamp_seconds)",
        FRESH,
        (6, 4),
    ),
    number(
        "Step",
        "Duration of the last step. It must stay below the step of 5 s.",
        "s",
        "max(sum by (instance) (stethos_detector_tick_seconds))",
        ((None, "green"), (2.5, "yellow"), (5.0, "red")),
        (6, 4),
    ),
    number(
        "Input",
        "Share of the known readings that the last step held. Below 80 % is an alert.",
        "percentunit",
        "min(stethos_detector_input_coverage_ratio)",
        COVERED,
        (6, 4),
    ),
    number(
        "Incomplete answers",
        "Answers of Prometheus within an hour that came with a warning.",
        "short",
        "sum(increase(stethos_detector_query_warnings_total[1h]))",
        ((None, "green"), (1.0, "yellow")),
        (6, 4),
    ),
]
LATENCY = [
    chart(
        "Step by stage",
        "Where a step's time goes. Together the stages must stay below the step of 5 s.",
        "s",
        "{{stage}} :: max by (stage) (stethos_detector_tick_seconds)",
        stacked=True,
    ),
    chart(
        "Steps",
        "Looks at the fleet per second, by how they went.",
        "ops",
        "{{result}} :: sum by (result) (rate(stethos_detector_ticks_total[$__rate_interval]))",
    ),
    chart(
        "Input coverage",
        "Share of the known readings that arrived.",
        "percentunit",
        "coverage :: min(stethos_detector_input_coverage_ratio)",
        steps=COVERED,
    ),
    chart(
        "GPUs by basis",
        "By what GPUs are judged: peers alone at first, then the model, then thresholds of their own.",
        "short",
        "{{basis}} :: sum by (basis) (stethos_detector_gpus)",
        stacked=True,
    ),
]
MODEL = [
    rows(
        "Model in use",
        "The version that serves, and by what it judges at its stage.",
        "short",
        (8, 6),
        "max by (version, stage) (stethos_detector_model_info)",
    ),
    rows(
        "Model on trial",
        "A shadow judges beside the model in use, and takes over only if it does better.",
        "short",
        (8, 6),
        'max by (version) (stethos_detector_shadow_info) or label_replace(vector(0), "version", "none", "", "")',
    ),
    rows(
        "What became of models",
        "Recalibrations, retrainings, promotions, rejections and roll-backs since the detector started.",
        "short",
        (8, 6),
        "sum by (kind, result) (stethos_detector_model_events_total)",
    ),
    chart(
        "Age of the model",
        "Time since the model in use was trained. It is retrained on a cadence and on drift.",
        "s",
        "trained :: time() - max(stethos_detector_model_trained_timestamp_seconds)",
        "recalibrated :: time() - max(stethos_detector_recalibrated_timestamp_seconds)",
    ),
    chart(
        "Drift",
        "How much more often than at calibration a signal is far from what the model expected; 1 is as then.",
        "none",
        "{{signal}} :: topk(10, max by (signal) (stethos_detector_drift_ratio))",
    ),
    chart(
        "Shift of the whole fleet",
        "How far the fleet's median has lastingly left what the model expected; at 1 a model is trained anew.",
        "none",
        "{{signal}} :: topk(10, max by (signal) (stethos_detector_shift_ratio))",
        steps=((None, "green"), (1.0, "red")),
    ),
]
CALIBRATION = [
    chart(
        "Alarms and the budget",
        "Alarms per 1,000 GPU-hours, true ones too, against the false alarms that may be.",
        "short",
        "{{stage}} :: 1000 * max by (stage) (stethos_detector_alarms)"
        " / (max by (stage) (stethos_detector_judged_gpu_hours) > 0)",
        "budget :: max(stethos_detector_budget_alarms_per_1000_gpu_hours)",
    ),
    chart(
        "Scores by quantile",
        "How the scores spread. On a healthy fleet the upper lines stay well below the threshold of 1.",
        "short",
        "highest :: max(stethos_anomaly_score)",
        "99 % :: quantile(0.99, stethos_anomaly_score)",
        "90 % :: quantile(0.9, stethos_anomaly_score)",
        "50 % :: quantile(0.5, stethos_anomaly_score)",
        steps=((None, "green"), (1.0, "red")),
    ),
]

BOARD = Board(
    "detector",
    "Stethos detector",
    "Latency by stage, coverage of its input, the models with their drift, and the calibration.",
    (("Now", NOW), ("Latency and input", LATENCY), ("Models", MODEL), ("Calibration", CALIBRATION)),
)
