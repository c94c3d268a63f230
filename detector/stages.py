"""How long the stages of a tick take: each without the stages inside it; those on several threads at once add up."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_seconds: dict[str, float] = {}
_lock = threading.Lock()
_within = threading.local()


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Counts the block's wall time for a stage."""
    outside: float = getattr(_within, "seconds", 0.0)
    _within.seconds = 0.0
    begin = time.perf_counter()
    try:
        yield
    finally:
        spent = time.perf_counter() - begin
        with _lock:
            _seconds[name] = _seconds.get(name, 0.0) + spent - _within.seconds
        _within.seconds = outside + spent


def taken() -> dict[str, float]:
    """The seconds of each stage since the last call."""
    with _lock:
        found = dict(_seconds)
        _seconds.clear()
    return found
