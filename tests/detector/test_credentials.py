"""Who may ask Prometheus is told to it alone: no page, log, error or command line shows it."""

import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from structlog.testing import capture_logs

from detector import signals
from detector.__main__ import cli
from detector.fleet import Fleet
from detector.lifecycle import LifeCycle, Plan
from detector.promql import CREDENTIALS, Prometheus, PrometheusError, credentials
from detector.service import Service

from .conftest import Serve
from .fleets import START, STEP, telemetry
from .test_promql import server

USER, SECRET = "reader", "fever-tree"
# bcrypt of SECRET, at its lowest cost
GUARD = "basic_auth_users: {reader: $2b$04$W0NUgV9Nk58gY0.xhjguP.RGL7JM9WBM81LHKxcJpgZYE2QD7z2Gq}\n"


@pytest.fixture
def guarded(prometheus: Serve, tmp_path: Path) -> str:
    """The URL of a Prometheus that asks for a password."""
    (tmp_path / "guard.yml").write_text(GUARD)
    return prometheus(telemetry(120, nodes=1), f"--web.config.file={tmp_path / 'guard.yml'}")


def test_a_password_in_the_url_opens_and_is_not_shown(guarded: str, tmp_path: Path) -> None:
    with Prometheus(guarded.replace("//", f"//{USER}:{SECRET}@")) as client:
        assert client.url == guarded
        assert len(client.range("gpu:power:watts", START, START, STEP).values) == 8
        with pytest.raises(PrometheusError) as refused:
            client.range("sum by (", START, START, STEP)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("address", ["http://reader:not-fever-tree@127.0.0.1:9", "guarded"])
def test_a_failing_tick_shows_no_password(guarded: str, tmp_path: Path, address: str) -> None:
    url = guarded.replace("//", f"//{USER}:not-{SECRET}@") if address == "guarded" else address
    with Prometheus(url, timeout=5) as client, capture_logs() as logs:
        service = Service(Fleet(client, signals.load(), tmp_path, STEP), STEP, clock=lambda: START + 100 * STEP)
        service.tick()
        reason = service.unready()
    assert reason
    assert "HTTP 401" in reason or "does not answer" in reason
    for said in (reason, str(logs), service.metrics().decode()):
        assert SECRET not in said
        assert USER not in said


@pytest.mark.parametrize("how", ["url", "file", "environment"])
def test_a_command_finds_the_password_wherever_it_is(
    guarded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    file, url, options = tmp_path / "credentials", guarded, list[str]()
    if how == "file":
        file.write_text(f"{USER}:{SECRET}\n")
        options = ["--prometheus-credentials-file", str(file)]
    elif how == "environment":
        monkeypatch.setenv(CREDENTIALS, f"{USER}:{SECRET}")
    else:
        url = guarded.replace("//", f"//{USER}:{SECRET}@")
    stretch = [f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}" for at in (START - 7200, START - 3600)]
    asked = ["train", "--prometheus", url, "--start", stretch[0], "--end", stretch[1], "--home", str(tmp_path)]
    result = CliRunner().invoke(cli, [*asked, *options])
    assert f"{guarded} holds no reading" in result.output, "it was let in, and there is nothing"
    assert SECRET not in result.output


def test_a_training_gets_the_password_by_its_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, told = tmp_path / "program", tmp_path / "told"
    program.write_text(f'#!/bin/sh\necho "$@" > {told}\necho "$0 ${CREDENTIALS}" > {told}.environment\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with Prometheus(f"http://{USER}:{SECRET}@127.0.0.1:9") as client, capture_logs() as logs:
        plan = Plan(client.url, signals.DEFAULT, tmp_path / "models", STEP, budget=0.1, credentials=client.credentials)
        life = LifeCycle(Fleet(client, signals.load(), tmp_path / "models", STEP), plan)
        life.retrain()
        assert life._child
        life._child[1].wait()
        life.review()
    assert "--prometheus http://127.0.0.1:9 " in told.read_text()
    assert Path(f"{told}.environment").read_text().split() == [str(program), f"{USER}:{SECRET}"]
    for said in (told.read_text(), str(logs), repr(plan), repr(replace(plan, url="x"))):
        assert SECRET not in said


@pytest.mark.parametrize(
    "url",
    [
        f"http://{USER}:{SECRET}/@127.0.0.1:9090",
        f"{USER}:{SECRET}@127.0.0.1:9090",
        f"http://{USER}:{SECRET}@127.0.0.1:port",
        f"ftp://{USER}:{SECRET}@127.0.0.1",
        f"http://127.0.0.1:9090/?token={SECRET}",
    ],
)
def test_what_is_no_url_is_told_without_its_password(url: str) -> None:
    with pytest.raises(PrometheusError) as told:
        Prometheus(url)
    assert SECRET not in str(told.value)


def test_what_has_no_colon_is_a_bearer_token(tmp_path: Path) -> None:
    body = b'{"status":"error","error":"no"}'
    heard: list[str] = []
    with server(body, 401, heard) as client, Prometheus(client.url, credentials="abc.def") as bearer:
        for each in (client, bearer):
            with pytest.raises(PrometheusError, match="refuses"):
                each.range("up", 0, 0, 1)
    assert heard == ["", "Bearer abc.def"]


def test_credentials_that_cannot_be_used_are_told_and_not_shown(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(PrometheusError, match="empty is empty"):
        credentials(tmp_path / "empty")
    with pytest.raises(PrometheusError, match="nowhere"):
        credentials(tmp_path / "nowhere")
    with pytest.raises(PrometheusError, match="neither") as told:
        Prometheus("http://127.0.0.1:9", credentials=f"{SECRET} {SECRET}")
    assert SECRET not in str(told.value)
