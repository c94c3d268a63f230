"""What `python -m scheduler serve` puts together."""

import re
import sys
from pathlib import Path

import click
import structlog

from .api import Configuration, application
from .auth import check_exposure, is_loopback
from .auth import token as read_token
from .cycle import Settings
from .health import Thresholds
from .remediation import Policy
from .server import BusyPortError, listen
from .server import serve as serve_on
from .store import Store, UnavailableError
from .store.retention import Keep
from .workload import check_rate

log = structlog.get_logger()


def run(
    home: Path,
    token_file: Path | None,
    host: str,
    port: int,
    prometheus: str | None,
    synthetic: str | None,
    database: str | None,
    workload: float | None,
    block_score: float,
    clear_score: float,
    clear_seconds: float,
    alert_ttl: float,
    node_timeout: float,
    queue_limit: int,
    keep_events: int,
    keep_jobs: int,
    keep_days: float,
    canary_seconds: float,
    hold_share: float,
    hold_rack_share: float,
    hold_floor: int,
    dry_run: bool,
) -> None:
    token_file = token_file or home / "token"
    try:
        check_rate(workload or 0.0)
        token = read_token(token_file)
        check_exposure(host, token, token_file)
        thresholds = Thresholds(block=block_score, clear=clear_score, clear_seconds=clear_seconds)
        listening = listen(host, port)
        where = database_in(home, database)
        store = Store(where)
    except (BusyPortError, UnavailableError, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    # The event loop gets its turn soon, even while a placement pass computes.
    sys.setswitchinterval(0.001)
    configuration = Configuration(
        store=store,
        token=token,
        token_file=token_file,
        loopback=is_loopback(host),
        prometheus=prometheus,
        synthetic=synthetic,
        workload=workload,
        alert_ttl_seconds=alert_ttl,
        queue_limit=queue_limit,
        settings=Settings(
            lost_seconds=node_timeout,
            thresholds=thresholds,
            keep=Keep(keep_events, keep_jobs, keep_days * 86_400),
            policy=Policy(hold_share, hold_rack_share, hold_floor, canary_seconds, dry_run=dry_run),
        ),
    )
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{listening.getsockname()[1]}"
    log.info("scheduler", url=url, database=without_password(str(where)), prometheus=prometheus)
    click.echo(f"Stethos: {url}/login?token={token}")
    serve_on(application(configuration), listening)


def database_in(home: Path, database: str | None) -> Path | str:
    """What was asked for, or the default: a file in the state folder."""
    return database or home / "scheduler.sqlite"


def without_password(database: str) -> str:
    """A URL without its password."""
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", database)
