"""Pages read back with the parser that Prometheus' own client library has."""

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


def samples(text: str, name: str) -> list[Sample]:
    """All samples of a name."""
    # The parser shows every counter with _total, whether the text has it or not.
    names = (name, f"{name}_total") if f"# TYPE {name} counter\n" in text else (name,)
    families = text_string_to_metric_families(text)
    return [each for family in families for each in family.samples if each.name in names]


def value(text: str, name: str, **labels: str) -> float | None:
    """The one sample with these labels among others; None when there is none."""
    found = [each.value for each in samples(text, name) if labels.items() <= each.labels.items()]
    assert len(found) <= 1
    return found[0] if found else None
