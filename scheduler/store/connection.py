"""What both databases have in common: one file of statements, and a connection that runs them."""

import re
from collections.abc import Mapping, Sequence
from enum import Enum, auto
from pathlib import Path
from typing import Any, Protocol

Value = str | int | float | None
Values = Mapping[str, Value]

HERE = Path(__file__).parent


class Row(Protocol):
    """A row by the names of its columns."""

    def __getitem__(self, column: str, /) -> Any: ...


class UnavailableError(Exception):
    """The database cannot be used now: full, read-only, locked, away. Nothing was changed."""


class TakenError(UnavailableError):
    """Another scheduler works on this database."""


class Access(Enum):
    READ = auto()
    WRITE = auto()
    #: To write, and to be the only scheduler that does.
    OWN = auto()


class Connection(Protocol):
    """One connection, used by one thread. Between `begin` and `commit` or `rollback` lies one transaction."""

    #: Changes when the connection was made anew.
    session: int

    def begin(self) -> None: ...
    def commit(self) -> None: ...
    def rollback(self) -> None: ...
    def savepoint(self) -> None: ...
    def release(self) -> None: ...
    def undo(self) -> None:
        """Back to the savepoint."""

    def all(self, statement: str, values: Values) -> Sequence[Row]: ...
    def each(self, statement: str, rows: Sequence[Values]) -> list[Sequence[Row]]:
        """What `all` gives for each of the values, at the price of one answer."""

    def change(self, statement: str, values: Values) -> int:
        """How many rows were changed."""

    def send(self, statement: str, values: Values) -> None:
        """A change whose count nobody needs; its failure may be told as late as by `release` or `commit`."""

    def many(self, statement: str, rows: Sequence[Values]) -> None:
        """`send` for each of the values."""

    def exactly(self, statement: str, rows: Sequence[Values]) -> None:
        """The same, each a change of one row. Raises AssertionError, as late, when one was not."""

    def run(self, text: str) -> None:
        """A statement of a migration."""

    def close(self) -> None: ...
    def unavailable(self, error: BaseException) -> str | None:
        """Why the database cannot be used, if that is what the error says."""


def statements(text: str) -> dict[str, str]:
    """The named statements of a file of `-- name: x` blocks."""
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], (body.strip() for body in parts[1::2]), strict=True))


STATEMENTS = statements((HERE / "queries.sql").read_text())
