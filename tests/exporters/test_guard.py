"""A collector that fails costs its own series only."""

from exporters import guard
from tests.exporters.series import value


def test_a_failing_collector_is_isolated_and_says_so() -> None:
    def fails() -> str:
        raise RuntimeError("no")

    text = guard.collect({"good": lambda: "# TYPE up gauge\nup 1\n", "bad": fails})
    assert value(text, "up") == 1
    assert value(text, "stethos_exporter_collector_success", collector="good") == 1
    assert value(text, "stethos_exporter_collector_success", collector="bad") == 0
    assert (value(text, "stethos_exporter_collector_duration_seconds", collector="bad") or -1) >= 0
