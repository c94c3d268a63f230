"""SQLite: write-ahead log, every commit on disk before it is answered. The only importer of sqlite3."""

import fcntl
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from .connection import STATEMENTS, Access, Row, TakenError, UnavailableError, Values

BUSY_SECONDS = 5.0


class Sqlite:
    session = 1

    def __init__(self, path: Path, access: Access) -> None:
        self._lock: int | None = None
        self._begin = "BEGIN" if access == Access.READ else "BEGIN IMMEDIATE"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if access == Access.OWN:
                self._lock = _claim(path)
            self._connection = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, timeout=BUSY_SECONDS, cached_statements=256
            )
            self._connection.row_factory = sqlite3.Row
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
                self._connection.execute(f"PRAGMA {pragma}")
            if access == Access.READ:
                self._connection.execute("PRAGMA query_only=ON")
        except (sqlite3.Error, OSError) as error:
            raise UnavailableError(f"the database {path} cannot be opened: {error}") from error

    def begin(self) -> None:
        self._connection.execute(self._begin)

    def commit(self) -> None:
        self._connection.execute("COMMIT")

    def rollback(self) -> None:
        # A full disk has ended the transaction already.
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def savepoint(self) -> None:
        self._connection.execute("SAVEPOINT item")

    def release(self) -> None:
        self._connection.execute("RELEASE item")

    def undo(self) -> None:
        self._connection.execute("ROLLBACK TO item")

    def all(self, statement: str, values: Values) -> Sequence[Row]:
        return self._connection.execute(STATEMENTS[statement], values).fetchall()

    def each(self, statement: str, rows: Sequence[Values]) -> list[Sequence[Row]]:
        return [self.all(statement, values) for values in rows]

    def change(self, statement: str, values: Values) -> int:
        return self._connection.execute(STATEMENTS[statement], values).rowcount

    def send(self, statement: str, values: Values) -> None:
        self.change(statement, values)

    def many(self, statement: str, rows: Sequence[Values]) -> None:
        self._connection.executemany(STATEMENTS[statement], rows)

    def exactly(self, statement: str, rows: Sequence[Values]) -> None:
        changed = self._connection.executemany(STATEMENTS[statement], rows).rowcount
        assert changed == len(rows), f"{statement} changed {changed} rows, not {len(rows)}"

    def run(self, text: str) -> None:
        self._connection.execute(text)

    def close(self) -> None:
        self._connection.close()
        if self._lock is not None:
            os.close(self._lock)

    def unavailable(self, error: BaseException) -> str | None:
        # Anything operational is the machine's doing: full, read-only, locked, input and output.
        if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
            return str(error)
        return None


def _claim(path: Path) -> int:
    """Held until the process ends, however it ends."""
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise TakenError(f"another scheduler works on {path}") from error
    return lock
