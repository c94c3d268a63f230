"""Who may do what: the bootstrap token in a file that only its owner reads, and tokens with scopes in the store."""

import asyncio
import hmac
import os
import secrets
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import structlog

from .clock import now
from .store import UnavailableError
from .store.tokens import Token, digest

log = structlog.get_logger()

#: Beyond loopback a token that people made up is no protection.
SHORTEST_TOKEN = 20
#: How long a token works on after it was revoked, at most.
KNOWN_SECONDS = 1.0


class Scope(StrEnum):
    READ = "read"
    JOBS = "jobs:write"
    NODES = "nodes:admin"
    ALERTS = "alerts:write"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks."""

    name: str
    scopes: frozenset[str]


BOOTSTRAP = Principal("bootstrap", frozenset(Scope))


def token(path: Path) -> str:
    """The token in `path`, made there if there is none. Two that start at once agree on one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".token-")  # mode 0600
        try:
            with os.fdopen(handle, "w") as file:
                file.write(secrets.token_urlsafe(32) + "\n")
            os.link(temporary, path)
        except FileExistsError:
            pass
        finally:
            os.unlink(temporary)
    found = path.read_text().strip()
    if not found:
        raise ValueError(f"the token file {path} is empty; remove it and a new one is made")
    return found


def is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def check_exposure(host: str, token: str, path: Path) -> None:
    """Raises ValueError where a token that can be guessed would be all that guards an address others reach."""
    if not is_loopback(host) and len(token) < SHORTEST_TOKEN:
        raise ValueError(
            f"the token in {path} has {len(token)} characters; to listen on {host}, beyond loopback, "
            f"it needs {SHORTEST_TOKEN} (remove the file and one is made)"
        )


class Keys:
    """Finds who a token belongs to.

    What is stored is read again every second while tokens are used, and at once for one that is not known: it may
    just have been made. Who asks meanwhile waits for the same read, so that guessing tokens keeps one reader busy.
    """

    def __init__(self, bootstrap: str, read: Callable[[], Awaitable[list[Token]]]) -> None:
        self._bootstrap = bootstrap.encode()
        self._read = read
        self._known: dict[str, Token] = {}
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()

    async def find(self, given: str) -> Principal | None:
        if hmac.compare_digest(given.encode(), self._bootstrap):
            return BOOTSTRAP
        if not given:
            return None
        hashed, asked_at = digest(given), now()
        await self._refresh(asked_at - KNOWN_SECONDS)
        if hashed not in self._known:
            await self._refresh(asked_at)
        found = self._known.get(hashed)
        if found is None or (found.expires_at is not None and found.expires_at <= now()):
            return None
        return Principal(found.name, found.scopes)

    async def _refresh(self, since: float) -> None:
        """Know what was stored at `since`, or later."""
        if self._read_at >= since:
            return
        async with self._reading:
            if self._read_at >= since:
                return
            began = now()
            try:
                self._known = {token.hash: token for token in await self._read()}
                self._read_at = began
            except UnavailableError as error:
                log.warning("tokens cannot be read; those known before stay valid", detail=str(error))
