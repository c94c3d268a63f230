"""Which job is on which GPU, from a folder as dcgm-exporter reads it: a file per GPU, one job id on each line."""

import re
from pathlib import Path

_NAME = re.compile(r"(?P<gpu>\d+)(\.(?P<instance>\d+))?")


def read(folder: Path) -> dict[tuple[int, int | None], tuple[str, ...]]:
    """(GPU, MIG instance or None) → job ids. Files called otherwise are not ours; one that vanishes is empty."""
    jobs: dict[tuple[int, int | None], tuple[str, ...]] = {}
    for file in sorted(folder.iterdir()):
        name = _NAME.fullmatch(file.name)
        if name is None:
            continue
        try:
            lines = file.read_text(errors="replace").splitlines()
        except OSError:
            continue
        instance = name["instance"]
        key = (int(name["gpu"]), None if instance is None else int(instance))
        if found := tuple(line.strip() for line in lines if line.strip()):
            jobs[key] = found
    return jobs
