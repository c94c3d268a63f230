"""What concerns the whole suite."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slow tests first: two workers then end at about the same time."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
