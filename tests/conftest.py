"""What concerns the whole suite."""

import pytest

LONGEST = "tests/test_loop.py"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file and the slow tests first: the workers then end at about the same time."""
    items.sort(key=lambda item: (not item.nodeid.startswith(LONGEST), item.get_closest_marker("slow") is None))
