"""Which job is on which GPU, from a folder as dcgm-exporter reads it: a file per GPU, one job id on each line."""

import os
import re
import stat
from pathlib import Path

_NAME = re.compile(r"(?P<gpu>[0-9]+)(\.(?P<instance>[0-9]+))?")
_MOST_BYTES = 65_536  # more is no list of the jobs on one GPU


def read(folder: Path) -> dict[tuple[int, int | None], tuple[str, ...]]:
    """(GPU, MIG instance or None) → job ids. Files called otherwise are not ours; one that vanishes is empty.

    Raises `OSError` when the folder cannot be read.
    """
    jobs: dict[tuple[int, int | None], tuple[str, ...]] = {}
    for file in sorted(folder.iterdir()):
        if name := _NAME.fullmatch(file.name):
            instance = name["instance"]
            key = (int(name["gpu"]), None if instance is None else int(instance))
            if found := _jobs(file):
                jobs[key] = found
    return jobs


def _jobs(file: Path) -> tuple[str, ...]:
    try:
        with open(file, "rb", opener=_at_once) as opened:
            about = os.fstat(opened.fileno())
            if not stat.S_ISREG(about.st_mode) or about.st_size > _MOST_BYTES:
                return ()
            text = opened.read(_MOST_BYTES).decode(errors="replace")
    except OSError:
        return ()
    return tuple(dict.fromkeys(line.strip() for line in text.split("\n") if line.strip()))


def _at_once(path: str, flags: int) -> int:
    # A scrape must not wait for the other end of a pipe.
    return os.open(path, flags | os.O_NONBLOCK)
