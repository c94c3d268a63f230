"""What concerns the whole suite."""

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no failure.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

LONGEST = "tests/test_loop.py"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file and the slow tests first: the workers then end at about the same time."""
    items.sort(key=lambda item: (not item.nodeid.startswith(LONGEST), item.get_closest_marker("slow") is None))
