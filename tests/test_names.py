"""The four package names are taken on PyPI: nothing that is installed, and no test folder, may stand in their way."""

from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
OURS = ("exporters", "scheduler", "detector", "kernels", "grafana", "prometheus")


@pytest.mark.parametrize("name", OURS)
def test_nothing_installed_has_our_name(name: str) -> None:
    assert packages_distributions().get(name, []) == []


def test_each_folder_of_tests_is_a_package() -> None:
    """Without the file, `import kernels` could find tests/kernels."""
    folders = {file.parent for file in TESTS.rglob("*.py")}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []
