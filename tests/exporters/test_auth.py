"""The token: private, made once, agreed on."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from exporters import auth


def test_the_token_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "home" / "token"
    token = auth.load(path)
    assert len(token) >= 40
    assert auth.load(path) == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["token"]


def test_those_who_start_at_once_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        tokens = set(pool.map(lambda _: auth.load(tmp_path / "token"), range(64)))
    assert len(tokens) == 1


def test_an_empty_token_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "token").touch()
    with pytest.raises(auth.TokenError, match="is empty"):
        auth.load(tmp_path / "token")


@pytest.mark.parametrize(("host", "expected"), [("127.0.0.1", True), ("localhost", True), ("0.0.0.0", False)])  # noqa: S104
def test_loopback(host: str, expected: bool) -> None:
    assert auth.is_loopback(host) is expected
