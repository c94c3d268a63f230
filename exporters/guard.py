"""Runs each collector by itself: one that fails costs its own series only, and says so in a metric."""

import time
from collections.abc import Callable, Mapping

import structlog

from exporters import exposition

log = structlog.get_logger()


def collect(collectors: Mapping[str, Callable[[], str]]) -> str:
    """The text of every collector that succeeds, then success and duration of each."""
    texts: list[str] = []
    success: dict[str, bool] = {}
    seconds: dict[str, float] = {}
    for name, collector in collectors.items():
        began = time.perf_counter()
        try:
            texts.append(collector())
            success[name] = True
        except Exception as error:
            log.error("collector failed", collector=name, error=str(error), kind=type(error).__name__)
            success[name] = False
        seconds[name] = time.perf_counter() - began
    texts.append(
        exposition.family(
            "stethos_exporter_collector_success",
            "gauge",
            "Whether the collector succeeded.",
            [(exposition.labels({"collector": name}), float(good)) for name, good in success.items()],
        )
    )
    texts.append(
        exposition.family(
            "stethos_exporter_collector_duration_seconds",
            "gauge",
            "How long the collector took.",
            [(exposition.labels({"collector": name}), value) for name, value in seconds.items()],
        )
    )
    return "".join(texts)


def ages(age_seconds: Mapping[int, float]) -> str:
    """How old each GPU's reading is: a stalled source shows, instead of looking calm."""
    return exposition.family(
        "stethos_exporter_reading_age_seconds",
        "gauge",
        "Seconds since the GPU was last read.",
        [(exposition.labels({"gpu": str(gpu)}), round(age, 3)) for gpu, age in age_seconds.items()],
    )
