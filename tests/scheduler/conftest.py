from collections.abc import Iterator
from pathlib import Path

import pytest

from .postgresql import Postgresql, binaries
from .processes import Scheduler


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scheduler]:
    server = Scheduler(
        tmp_path_factory.mktemp("shared"), "--node-timeout", "120", "--alert-ttl", "2", "--canary-seconds", "0"
    )
    yield server
    server.close()


@pytest.fixture
def scheduler(shared: Scheduler) -> Iterator[Scheduler]:
    """The server that tests share, left without nodes and waiting jobs."""
    yield shared
    shared.remove_all()


@pytest.fixture
def own_scheduler(tmp_path: Path) -> Iterator[Scheduler]:
    """A server that a test may kill."""
    server = Scheduler(tmp_path, "--node-timeout", "3")
    yield server
    server.close()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Postgresql]:
    folder = binaries()
    if folder is None:
        pytest.skip("no PostgreSQL here: install it (Debian: postgresql), or put initdb and postgres on PATH")
    with Postgresql(folder) as server:
        yield server
