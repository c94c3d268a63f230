"""What `python -m scheduler serve` puts together."""

from pathlib import Path

import click
import structlog

from .api import Configuration, application
from .auth import is_loopback
from .auth import token as read_token
from .cycle import Settings
from .health import Thresholds
from .server import BusyPortError, listen
from .server import serve as serve_on

log = structlog.get_logger()


def run(
    home: Path,
    token_file: Path | None,
    host: str,
    port: int,
    prometheus: str | None,
    database: Path | None,
    workload: float | None,
    block_score: float,
    clear_score: float,
    clear_seconds: float,
    alert_ttl: float,
    node_timeout: float,
) -> None:
    token_file = token_file or home / "token"
    try:
        token = read_token(token_file)
        thresholds = Thresholds(block_score, clear_score, clear_seconds)
        listening = listen(host, port)
    except (BusyPortError, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    configuration = Configuration(
        database=database or home / "scheduler.sqlite",
        token=token,
        token_file=token_file,
        loopback=is_loopback(host),
        prometheus=prometheus,
        workload=workload,
        alert_ttl_seconds=alert_ttl,
        settings=Settings(lost_seconds=node_timeout, thresholds=thresholds),
    )
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{listening.getsockname()[1]}"
    log.info("scheduler", url=url, database=str(configuration.database), prometheus=prometheus)
    click.echo(f"Stethos: {url}/login?token={token}")
    serve_on(application(configuration), listening)
