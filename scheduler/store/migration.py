"""The schema's versions: numbered files, each committed together with its number. The same for both databases."""

import re
from collections.abc import Mapping
from pathlib import Path

from .connection import HERE, Connection


def migrate(connection: Connection, folder: Path = HERE / "migrations") -> None:
    """Bring the schema up to date. Two that start at once wait for one another."""
    connection.begin()
    try:
        connection.run("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER PRIMARY KEY)")
        connection.commit()
    except BaseException:
        connection.rollback()
        raise
    for version, text in migrations(folder).items():
        _apply(connection, version, text)


def migrations(folder: Path) -> Mapping[int, str]:
    return {int(path.name[:4]): path.read_text() for path in sorted(folder.glob("[0-9]*.sql"))}


def _apply(connection: Connection, version: int, text: str) -> None:
    connection.begin()
    try:
        connection.change("lock_schema", {})
        row = connection.all("schema_version", {})[0]
        if version > (row["version"] or 0):
            for statement in split(text):
                connection.run(statement)
            connection.change("add_schema_version", {"version": version})
        connection.commit()
    except BaseException:
        connection.rollback()
        raise


def split(text: str) -> list[str]:
    """The statements of a migration, each of which ends with a semicolon at the end of its line."""
    bare = re.sub(r"^--.*\n", "", text, flags=re.MULTILINE)
    return [statement.strip() for statement in re.split(r";[ \t]*$", bare, flags=re.MULTILINE) if statement.strip()]
