"""Where the servers' programs are, and how the tests run them."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFIGURATION = ROOT / "prometheus"
BIN = Path(os.environ.get("STETHOS_HOME") or ROOT / ".stethos").absolute() / "bin"


def program(name: str) -> str:
    """The program's path. A missing one is a failure, not a skip: the rules would go unchecked."""
    path = BIN / name
    if not os.access(path, os.X_OK):
        pytest.fail(f"there is no {path}: scripts/servers puts it there")
    return str(path)


def check(name: str, *arguments: str | Path) -> str:
    """Run a checking tool; what it says is the failure's message when it objects."""
    done = subprocess.run([program(name), *map(str, arguments)], capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


@contextmanager
def running(*command: str | Path, log: Path) -> Iterator[None]:
    """A server for the duration of the block."""
    with log.open("w") as output:
        process = subprocess.Popen([*map(str, command)], stdout=output, stderr=subprocess.STDOUT)
        try:
            yield
        finally:
            process.terminate()
            process.wait(timeout=10)
