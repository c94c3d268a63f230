"""What `python -m scheduler token` does. It works on the database, beside a running server or without one."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import click

from .clock import rfc3339
from .serve import database_in
from .store import Access, Store, Transaction, UnavailableError
from .store import tokens as stored

T = TypeVar("T")
DAY_SECONDS = 86_400.0


def create(home: Path, database: str | None, name: str, scopes: Sequence[str], days: float | None) -> None:
    """Print the new token, once and for all."""
    seconds = None if days is None else days * DAY_SECONDS
    click.echo(_write(home, database, lambda tx: stored.create(tx, name, scopes, seconds)))


def show(home: Path, database: str | None) -> None:
    for token in _write(home, database, stored.get_all):
        end = "never expires" if token.expires_at is None else f"expires {rfc3339(token.expires_at)}"
        click.echo(f"{token.name}  {' '.join(sorted(token.scopes))}  created {rfc3339(token.created_at)}  {end}")


def revoke(home: Path, database: str | None, name: str) -> None:
    if not _write(home, database, lambda tx: stored.revoke(tx, name)):
        raise click.ClickException(f"there is no token named {name!r}")


def _write(home: Path, database: str | None, work: Callable[[Transaction], T]) -> T:
    try:
        store = Store(database_in(home, database), Access.WRITE)
    except UnavailableError as error:
        raise click.ClickException(str(error)) from error
    try:
        return asyncio.run(store.write(work))
    except (stored.KnownTokenError, UnavailableError) as error:
        raise click.ClickException(str(error)) from error
    finally:
        store.close()
