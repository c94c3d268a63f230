"""Commands on a real node: each has a folder and a supervisor of its own, so that it outlives a crash of the agent.

python -m scheduler.agent.command FOLDER runs what FOLDER/attempt.json says and leaves FOLDER/result.json. It holds a
lock on FOLDER/lock as long as it lives: that is how an agent that was started anew knows.
"""

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ValidationError

from .client import Ending, Report, Start

ROOT = Path(__file__).parents[2]
TAIL_BYTES = 16_384
#: Between asking a command to end and killing it.
GRACE_SECONDS = 5.0
_POLL_SECONDS = 0.1


class _Result(BaseModel):
    exit_code: int
    stdout: str
    stderr: str


class Commands:
    """The commands of one agent. `folder` survives it; what is in there is taken up again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def adopt(self) -> Sequence[Start]:
        """The attempts that an earlier agent began and that nobody has reported yet."""
        found = []
        for file in sorted(self._folder.glob("*/attempt.json")):
            with contextlib.suppress(ValidationError, OSError):
                found.append(Start.model_validate_json(file.read_bytes()))
        return found

    async def run(self, attempt: Start) -> Report:
        """Run a command to its end, or wait for one that runs already. When cancelled, its process group is ended."""
        folder = self._of(attempt)
        if not folder.exists():
            self._begin(attempt)
        try:
            while not (folder / "result.json").exists():
                if not _alive(folder) and not (folder / "result.json").exists():
                    return Report(Ending.INFRASTRUCTURE, "the command's supervisor died")
                await asyncio.sleep(_POLL_SECONDS)
        except asyncio.CancelledError:
            await self._stop(folder)
            raise
        return _report(_Result.model_validate_json((folder / "result.json").read_bytes()))

    def forget(self, attempt: Start) -> None:
        """Its report was taken, or nobody wants it any more."""
        shutil.rmtree(self._of(attempt), ignore_errors=True)

    def _of(self, attempt: Start) -> Path:
        return self._folder / f"{attempt.node}-{attempt.fence}"

    def _begin(self, attempt: Start) -> None:
        folder = self._of(attempt)
        folder.mkdir(parents=True, mode=0o700)
        lock = (folder / "lock").open("w")
        with lock:
            # Taken here and inherited, so that there is no moment in which nobody holds it.
            fcntl.flock(lock, fcntl.LOCK_EX)
            (folder / "attempt.json").write_text(attempt.model_dump_json())
            child = subprocess.Popen(  # noqa: S603 - the argument is our own folder
                [sys.executable, "-m", "scheduler.agent.command", str(folder)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=[lock.fileno()],
            )
            (folder / "pid").write_text(str(child.pid))
            # Waited for, so that it does not stay as a zombie when it ends.
            threading.Thread(target=child.wait, daemon=True).start()

    async def _stop(self, folder: Path) -> None:
        if _alive(folder):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int((folder / "pid").read_text()), signal.SIGTERM)
        end = asyncio.get_running_loop().time() + 2 * GRACE_SECONDS
        while _alive(folder) and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(_POLL_SECONDS)


def _alive(folder: Path) -> bool:
    """Whether the supervisor still holds its lock."""
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _report(result: _Result) -> Report:
    said = result.model_dump()
    if result.exit_code == 0:
        return Report(Ending.SUCCEEDED, None, said)
    how = f"signal {-result.exit_code}" if result.exit_code < 0 else f"exit code {result.exit_code}"
    last = result.stderr.strip().rpartition("\n")[2]
    return Report(Ending.FAILED, f"the command ended with {how}" + (f": {last[:300]}" if last else ""), said)


class Tail:
    """The newest bytes of a stream, kept while it is read to its end."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._kept = b""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def text(self) -> str:
        """What was kept. A process that was left behind may hold the stream open: that is not waited for long."""
        self._thread.join(1.0)
        return self._kept.decode(errors="replace")

    def _read(self) -> None:
        while piece := os.read(self._stream.fileno(), 65_536):
            self._kept = (self._kept + piece)[-TAIL_BYTES:]


def supervise(folder: Path) -> None:
    """Run the command to its end. On SIGTERM its process group is asked to end, and killed if it does not."""
    attempt = Start.model_validate_json((folder / "attempt.json").read_bytes())
    try:
        child = subprocess.Popen(  # noqa: S603 - running it is what was asked for, and allowed
            _argv(attempt.parameters),
            env={**os.environ, **_environment(attempt)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        _write(folder, _Result(exit_code=127, stdout="", stderr=f"{error.strerror}: {error.filename}"))
        return

    def end(*_: object) -> None:
        _signal(child.pid, signal.SIGTERM)
        threading.Timer(GRACE_SECONDS, _signal, (child.pid, signal.SIGKILL)).start()

    signal.signal(signal.SIGTERM, end)
    assert child.stdout is not None
    assert child.stderr is not None
    out, err = Tail(child.stdout), Tail(child.stderr)
    code = child.wait()
    _signal(child.pid, signal.SIGKILL)  # what it has left behind in its group
    _write(folder, _Result(exit_code=code, stdout=out.text(), stderr=err.text()))


def _argv(parameters: Mapping[str, object]) -> list[str]:
    argv = parameters["argv"]
    assert isinstance(argv, list)
    return [str(word) for word in argv]


def _environment(attempt: Start) -> dict[str, str]:
    return {
        "CUDA_VISIBLE_DEVICES": ",".join(str(gpu) for gpu in attempt.gpus),
        "STETHOS_JOB": attempt.job,
        "STETHOS_NODE": attempt.node,
    }


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _write(folder: Path, result: _Result) -> None:
    """Whole or not at all."""
    (folder / "result.tmp").write_text(result.model_dump_json())
    (folder / "result.tmp").rename(folder / "result.json")


if __name__ == "__main__":
    supervise(Path(sys.argv[1]))
    os._exit(0)  # a timer that would still kill, or a thread that reads, has nothing left to do
