"""This machine: each attempt is a child process that sees only its own GPUs."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .client import Device, Ending, NodeDescription, Report, Start
from .command import Commands

ROOT = Path(__file__).parents[2]


def count_gpus() -> list[Device] | None:
    """The GPUs that nvidia-smi lists; None where there is no driver."""
    query = ["nvidia-smi", "--query-gpu=index,uuid,name", "--format=csv,noheader"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    rows = [[cell.strip() for cell in line.split(",", 2)] for line in listed.splitlines() if line.strip()]
    return [Device(int(index), uuid, name) for index, uuid, name in rows]


class Host:
    """One node, this one."""

    def __init__(self, node: NodeDescription, commands: Commands | None) -> None:
        """Without `commands` a job that asks for one fails here."""
        self._node = node
        self._commands = commands

    async def nodes(self) -> Sequence[NodeDescription]:
        return [self._node]

    async def gone(self) -> Sequence[str]:
        return []

    async def close(self) -> None:
        return None

    async def adopt(self) -> Sequence[Start]:
        return self._commands.adopt() if self._commands else []

    async def settle(self, attempt: Start) -> None:
        if self._commands and attempt.type == "command":
            self._commands.forget(attempt)

    async def execute(self, attempt: Start) -> Report:
        if attempt.type == "command":
            if self._commands is None:
                return Report(Ending.FAILED, f"the agent of {attempt.node} was not started with --allow-commands")
            return await self._commands.run(attempt)
        devices = ",".join(str(gpu) for gpu in attempt.gpus)
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "scheduler.agent.executors",
            cwd=ROOT,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": devices},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        try:
            child.stdin.write(attempt.model_dump_json().encode() + b"\n")
            # Left open: the child ends itself when this pipe closes, so it cannot outlive the agent.
            out, err, _ = await asyncio.gather(child.stdout.read(), child.stderr.read(), child.wait())
        finally:
            _kill(child)
            await child.wait()
            child.stdin.close()
        return _report(child.returncode or 0, out, err)


def _kill(child: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def _report(code: int, out: bytes, err: bytes) -> Report:
    last = out.decode(errors="replace").strip().rpartition("\n")[2]
    try:
        said = json.loads(last)
    except ValueError:
        tail = err.decode(errors="replace").strip()[-500:]
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return Report(Ending.FAILED, f"the executor ended with {how}: {tail}")
    if code == 0:
        return Report(Ending.SUCCEEDED, None, said)
    return Report(Ending.FAILED, said["reason"])
