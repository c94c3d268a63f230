"""API tokens as stored: a name, scopes, and a hash from which the token does not follow."""

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from .connection import Row
from .transaction import Transaction

PREFIX = "stethos_"


class KnownTokenError(ValueError):
    """There is a token of this name already."""


@dataclass(frozen=True, slots=True)
class Token:
    name: str
    hash: str
    scopes: frozenset[str]
    created_at: float
    expires_at: float | None


def digest(token: str) -> str:
    """A plain hash is enough, since a token has 256 bits of chance in it."""
    return hashlib.sha256(token.encode()).hexdigest()


def create(tx: Transaction, name: str, scopes: Iterable[str], seconds: float | None) -> str:
    """The new token, which nobody can read again. Raises KnownTokenError."""
    token = PREFIX + secrets.token_urlsafe(32)
    expires_at = None if seconds is None else tx.now + seconds
    listed = " ".join(sorted(scopes))
    if not tx.change("add_token", name=name, hash=digest(token), scopes=listed, now=tx.now, expires_at=expires_at):
        raise KnownTokenError(f"there is a token named {name!r} already; revoke it first")
    return token


def get_all(tx: Transaction) -> list[Token]:
    return [_token(row) for row in tx.all("tokens")]


def revoke(tx: Transaction, name: str) -> bool:
    """Whether there was one."""
    return tx.change("remove_token", name=name) > 0


def _token(row: Row) -> Token:
    return Token(row["name"], row["hash"], frozenset(row["scopes"].split()), row["created_at"], row["expires_at"])
