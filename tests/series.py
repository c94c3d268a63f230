"""Which series an expression reads, and which series there are: the two sides of the telemetry contract."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
RULE_FILES = sorted([*ROOT.glob("prometheus/rules/*.yml"), *ROOT.glob("prometheus/alerts/*.yml")])
DASHBOARDS = sorted(ROOT.glob("grafana/dashboards/*.json"))

_WORD = re.compile(r"(?<![\w.:])[a-zA-Z_:][\w:]*(?!\w*\s*\()")
_OPERATORS = {"and", "or", "unless", "bool", "offset", "inf", "nan", "by", "without", "on", "ignoring"}
_GROUPING = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_NAME_MATCHER = re.compile(r'__name__\s*=~?\s*"([\w:|]+)"')
_DURATION = re.compile(r"\[[^]]*\]|\boffset\s+\w+")


def read_by(promql: str) -> set[str]:
    """The names of the series that an expression reads."""
    names = {name for found in _NAME_MATCHER.findall(promql) for name in found.split("|")}
    bare = _DURATION.sub(" ", re.sub(r"\{[^}]*\}", " ", re.sub(r'"(\\.|[^"\\])*"', '""', promql)))
    words = _WORD.findall(_GROUPING.sub(" ", bare))
    return names | {word for word in words if word.lower() not in _OPERATORS}


def rules() -> Iterator[dict[str, str]]:
    """Every rule as written, with its `expr` and either `record` or `alert`."""
    for file in RULE_FILES:
        for group in yaml.safe_load(file.read_text())["groups"]:
            yield from group["rules"]


def panels() -> Iterator[tuple[str, dict[str, object]]]:
    """Every panel of every dashboard, with its dashboard's file name."""
    for file in DASHBOARDS:
        for panel in json.loads(file.read_text())["panels"]:
            if panel["type"] != "row":
                yield file.name, panel


def plain(promql: str) -> str:
    """A dashboard's expression as Prometheus would get it: Grafana's variables filled in."""
    return re.sub(r"\$\w+", lambda found: "5m" if "interval" in found[0] else ".+", promql)


# How the constructors of the two ways to emit a series name what is scraped.
_EMITTERS = {
    "Counter": ["{}_total"],
    "CounterMetricFamily": ["{}_total"],
    "Gauge": ["{}"],
    "GaugeMetricFamily": ["{}"],
    "Histogram": ["{}_bucket", "{}_sum", "{}_count"],
    "family": ["{}"],
}


def emitted_in(source: str) -> set[str]:
    """The names that a Python source hands to a constructor of metrics as a literal."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and node.args and isinstance(first := node.args[0], ast.Constant):
            constructor = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            names |= {form.format(first.value) for form in _EMITTERS.get(constructor, [])}
    return names


def literals_in(source: str, pattern: str) -> Iterator[str]:
    """The string literals of a Python source that match."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.search(pattern, node.value):
            yield node.value
