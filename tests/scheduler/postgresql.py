"""A real PostgreSQL of the tests' own: a fresh cluster, a free port, another user where we are root."""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Self

import psycopg

from scheduler.server import listen

from .processes import until

#: Whom the server runs as when the tests run as root, which it refuses.
USER = "nobody"


def binaries() -> Path | None:
    """The folder with initdb and postgres, if there is one."""
    on_path = shutil.which("initdb")
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = Path(on_path).resolve() if on_path else packaged[-1] if packaged else None
    return found.parent if found else None


class Postgresql:
    def __init__(self, folder: Path) -> None:
        # Not below pytest's own folder, which nobody else may enter.
        self._home = Path(tempfile.mkdtemp(prefix="stethos-postgresql-"))
        self._bin = folder
        self._user = USER if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(self._home, self._user)
        self._data = self._home / "data"
        self._run("initdb", "-D", str(self._data), "-U", "stethos", "-A", "trust", "-E", "UTF8", "--no-sync")
        free = listen("127.0.0.1", 0)
        self._port = int(free.getsockname()[1])
        free.close()
        self.start()

    @property
    def url(self) -> str:
        return self.database("postgres")

    def database(self, name: str) -> str:
        return f"postgresql://stethos@127.0.0.1:{self._port}/{name}"

    def create(self, name: str) -> str:
        """The URL of a new, empty database."""
        self.execute(f"CREATE DATABASE {name}")
        return self.database(name)

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement.encode())

    def set(self, name: str, value: str) -> None:
        """For everybody, sessions that are open too."""
        self.execute(f"ALTER SYSTEM SET {name} = {value}")
        self.execute("SELECT pg_reload_conf()")

    def start(self) -> None:
        options = ["-p", str(self._port), "-h", "127.0.0.1", "-k", str(self._home), "-c", "max_connections=50"]
        with (self._home / "log").open("ab") as log:
            self._server = subprocess.Popen(
                [str(self._bin / "postgres"), "-D", str(self._data), *options], stdout=log, stderr=log, user=self._user
            )
        until(self._answers, 30)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT is PostgreSQL's fast shutdown, SIGQUIT its crash."""
        self._server.send_signal(how)
        self._server.wait(30)

    def kill_connections(self) -> None:
        self.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")

    def _answers(self) -> bool:
        assert self._server.poll() is None, (self._home / "log").read_text()
        try:
            psycopg.connect(self.url, connect_timeout=1).close()
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run([str(self._bin / program), *arguments], check=True, capture_output=True, user=self._user)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._server.poll() is None:
            self.stop(signal.SIGQUIT)
        shutil.rmtree(self._home)
