"""A stretch of the past out of Prometheus, in pieces that it and this process can bear."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np

from detector import anew
from detector.ingest import WHOLE, Ingest, newest_step
from detector.promql import Prometheus, PrometheusError, RefusalError
from detector.shard import Shard
from detector.signals import Signals
from detector.telemetry import Telemetry
from detector.window import Window

_PIECE = 5000  # steps per query: Prometheus refuses more than 11,000 points a series
_FIRST = 240  # steps of the first one, before it is known how many samples a step has
_SAMPLES = 1_000_000  # in an answer: 30 MB of JSON


def read(
    prometheus: Prometheus,
    signals: Signals,
    start: float,
    end: float,
    step: float,
    shard: Shard = WHOLE,
    progress: Callable[[float], None] = lambda _: None,
) -> Telemetry:
    """A stretch of the past as telemetry, from its first reading on. Raises PrometheusError, also if there is none.

    It is read in pieces of as many steps as make answers of a size that both sides can bear, and of half as many where
    Prometheus refuses that. progress: told the share that is read. Memory: 8 bytes
    per GPU, step and signal, and half a gigabyte for the answers on their way.
    """
    steps, first = int((end - start) / step) + 1, newest_step(start, step)
    window = Window(steps, step)
    window.advance(first + (steps - 1) * step)
    reader = Ingest(prometheus, signals, window, shard)
    done, piece, most = 0, _FIRST, _PIECE
    while done < steps:
        piece = min(piece, most, steps - done)
        try:
            samples = reader.read(first + done * step, first + (done + piece - 1) * step)
        except RefusalError as error:
            if not error.less or piece == 1:
                raise
            piece = most = piece // 2
            continue
        done += piece
        piece = max(1, _SAMPLES * piece // samples) if samples else _FIRST
        progress(done / steps)
    telemetry = window.telemetry()
    heard = np.zeros(steps, np.bool_)
    for plane in telemetry.values:
        heard |= ~np.isnan(plane).all(axis=0)
    if not heard.any():
        stretch = " to ".join(f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}" for at in (start, end))
        raise PrometheusError(f"{prometheus.url} holds no reading of any signal from {stretch}")
    return anew.named(telemetry).newest(steps - int(heard.argmax()))
