"""Wall time that cannot jump: the wall clock at start plus the monotonic time since."""

import time
from datetime import UTC, datetime

_STARTED_AT = time.time() - time.monotonic()


def now() -> float:
    """Seconds since the epoch; a clock set back or forth while we run changes nothing."""
    return _STARTED_AT + time.monotonic()


def rfc3339(timestamp: float) -> str:
    return datetime.fromtimestamp(timestamp, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
