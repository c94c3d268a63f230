"""The Prometheus text format 0.0.4, written directly: a node's page is a few hundred lines, many times a minute.

`prometheus_client` would add `_total` to counters, which DCGM's names do not have.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Literal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPEN_CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_COUNTER = re.compile(r"^# HELP (\S+) (.*)\n# TYPE \1 counter$", re.MULTILINE)
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


def labels(pairs: Mapping[str, str]) -> str:
    """`{a="x",b="y"}` in the order given; nothing at all for no labels."""
    if not pairs:
        return ""
    return "{" + ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in pairs.items()) + "}"


def number(value: float) -> str:
    """The shortest text that reads back as the same number; whole numbers without a point."""
    if isinstance(value, int):
        return str(value)
    return f"{value:.0f}" if value.is_integer() else repr(value)


def family(
    name: str,
    kind: Literal["gauge", "counter"],
    explanation: str,
    samples: Iterable[tuple[str, float]],
) -> str:
    """One family with HELP and TYPE; empty when there is no sample. `samples` are (label text, value)."""
    lines = [f"{name}{tags} {number(value)}\n" for tags, value in samples]
    if not lines:
        return ""
    return f"# HELP {name} {explanation}\n# TYPE {name} {kind}\n" + "".join(lines)


def openmetrics(text: str) -> str:
    """A page as OpenMetrics 1.0. There a counter's sample must end in `_total`; DCGM's others have no known type."""
    return _COUNTER.sub(_open_counter, text) + "# EOF\n"


def _open_counter(found: re.Match[str]) -> str:
    name, explanation = found.groups()
    stem = name.removesuffix("_total")
    kind = "unknown" if stem == name else "counter"
    return f"# HELP {stem} {explanation}\n# TYPE {stem} {kind}"
