"""The Prometheus text format 0.0.4, written directly: a node's page is a few hundred lines, many times a minute.

`prometheus_client` would add `_total` to counters, which DCGM's names do not have.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

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
