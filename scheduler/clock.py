"""Wall time that cannot jump: the wall clock at start plus the monotonic time since."""

import time
from datetime import UTC, datetime
from typing import overload

_STARTED_AT = time.time() - time.monotonic()


def now() -> float:
    """Seconds since the epoch; a clock set back or forth while we run changes nothing."""
    return _STARTED_AT + time.monotonic()


@overload
def rfc3339(timestamp: float) -> str: ...
@overload
def rfc3339(timestamp: None) -> None: ...
def rfc3339(timestamp: float | None) -> str | None:
    """What never was has no time."""
    if timestamp is None:
        return None
    return datetime.fromtimestamp(timestamp, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
