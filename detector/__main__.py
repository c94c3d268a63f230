"""python -m detector: run | train | score | evaluate."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click
import structlog
import torch
import uvicorn

from detector import auth, history, ingest, log, promql, recording, registry, scoring, signals, training
from detector.budget import BUDGETS
from detector.card.device import option as _device
from detector.card.judge import on
from detector.evaluation.datasets import DatasetError, Synthetic
from detector.feed import LOOKBACK, Feed
from detector.fleet import Fleet, Wishes
from detector.lifecycle import LifeCycle, Plan
from detector.promql import Prometheus, PrometheusError
from detector.recording import RecordingError
from detector.registry import RegistryError
from detector.service import Service, application
from detector.shard import Shard
from detector.signals import Signals, SignalsError
from detector.telemetry import Telemetry
from detector.threads import limit
from detector.topology import KINDS
from detector.training import Settings, TrainingError, train

_T = TypeVar("_T")

_SETTINGS = {"show_default": True}
_EXPECTED = (
    SignalsError, RecordingError, DatasetError, TrainingError, RegistryError, PrometheusError, auth.TokenError, OSError,
)  # fmt: skip
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(file_okay=False, path_type=Path)
_TIME = click.DateTime(["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d"])


_home = click.option(
    "--home", envvar="STETHOS_HOME", default=".stethos", type=_FOLDER, help="State: the token, the models."
)
_signals = click.option(
    "--signals", "signals_file", default=signals.DEFAULT, type=_FILE, help="What to read, and how to judge it."
)
_no_edges = click.option(
    "--no-edges", multiple=True, type=click.Choice(KINDS), help="Peers not to compare with; the same for all commands."
)


class _Finite(click.FloatRange):
    """NaN is in every range and infinity in an open one; neither is a time or a rate."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{number} is not a finite number.", param, ctx)
        return number


_step = click.option("--step", default=5.0, type=_Finite(1, 3600), help="Seconds from one sample to the next.")
_credentials = click.option(
    "--prometheus-credentials-file",
    "credentials_file",
    envvar=f"{promql.CREDENTIALS}_FILE",
    type=_FILE,
    help=f"user:password or a bearer token for it; ${promql.CREDENTIALS} may hold the same.",
)
_HOURS = _Finite(0, 24 * 365)
_MODEL = click.Path(exists=True, file_okay=False, path_type=Path)
_BUDGET = _Finite(BUDGETS[0], BUDGETS[-1])


def _shard(_: click.Context, __: click.Parameter, text: str) -> Shard:
    try:
        return Shard.parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.group()
def cli() -> None:
    """Scores every GPU of a fleet by what Prometheus knows of it."""
    log.configure()


@cli.command(context_settings=_SETTINGS)
@click.option("--prometheus", "url", required=True, help="Base URL of Prometheus or of what speaks its API.")
@_credentials
@click.option("--host", default="127.0.0.1", help="Address of the metrics; beyond loopback they need the token.")
@click.option("--port", default=9401, type=click.IntRange(0, 65535), help="Port of the metrics.")
@click.option("--models", type=_FOLDER, help="Trained models; the newest is used.  [default: HOME/models]")
@click.option("--token-file", type=click.Path(path_type=Path), help="Bearer token.  [default: HOME/token]")
@click.option("--budget", default=0.1, type=_BUDGET, help="False alarms per 1,000 GPU-hours; needs no new training.")
@click.option("--shard", default="1/1", callback=_shard, help="Judge the i-th of n shares of the fleet, by rack.")
@_no_edges
@_device
@click.option("--pushed", is_flag=True, help="Prometheus pushes its series to /api/v1/write; the rest is asked for.")
@click.option("--lookback", default=LOOKBACK, type=_Finite(1), help="Prometheus' --query.lookback-delta, s.")
@click.option("--recalibrate-hours", default=24.0, type=_HOURS, help="Thresholds are refitted so often; 0: never.")
@click.option(
    "--retrain-hours",
    default=168.0,
    type=_HOURS,
    help="A new model is trained so often; 0: never, not even a first one.",
)
@click.option("--history-hours", default=24.0, type=_HOURS, help="What both learn from.")
@click.option("--trial-hours", default=1.0, type=_HOURS, help="A new model judges in the shadow before it serves.")
@click.option("--keep", default=10, type=click.IntRange(2), help="Versions of the model that stay on disk.")
@_home
@_signals
@_step
def run(
    url: str,
    credentials_file: Path | None,
    host: str,
    port: int,
    models: Path | None,
    token_file: Path | None,
    budget: float,
    shard: Shard,
    no_edges: tuple[str, ...],
    device: torch.device,
    pushed: bool,
    lookback: float,
    recalibrate_hours: float,
    retrain_hours: float,
    history_hours: float,
    trial_hours: float,
    keep: int,
    home: Path,
    signals_file: Path,
    step: float,
) -> None:
    """Judge the fleet every step and publish the scores as metrics."""
    limit(1)  # a fleet's step is small: a second thread costs more in waiting than it gains
    wanted = _or_exit(lambda: signals.load(signals_file))
    token = None if auth.is_loopback(host) else _or_exit(lambda: auth.load(token_file or home / "token"))
    wishes = Wishes(budget, shard, _edges(no_edges), partial(on, device))
    with _or_exit(lambda: Prometheus(url, credentials=promql.credentials(credentials_file))) as prometheus:
        folder = models or home / "models"
        feed = Feed(ingest.names_of(wanted), step, lookback) if pushed else None
        fleet = Fleet(prometheus, wanted, folder, step, wishes, feed)
        plan = Plan(
            url=prometheus.url,
            signals_file=signals_file,
            models=folder,
            step=step,
            budget=budget,
            shard=shard,
            edges=wishes.edges,
            recalibrate=recalibrate_hours,
            retrain=retrain_hours,
            history=history_hours,
            trial=trial_hours,
            keep=keep,
            credentials=prometheus.credentials,
        )
        service = Service(fleet, step, LifeCycle(fleet, plan))
        # uvicorn shuts down on these signals and then raises them again, for this handler.
        for caught in (signal.SIGINT, signal.SIGTERM):
            signal.signal(caught, lambda *_: sys.exit(0))
        structlog.get_logger().info("starting", url=f"http://{host}:{port}", prometheus=prometheus.url)
        uvicorn.run(
            application(service, step, token, feed),
            host=host,
            port=port,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=3,
        )


@cli.command("train", context_settings=_SETTINGS)
@click.option("--recording", "recordings", multiple=True, type=_FILE, help="A recording to learn from; repeatable.")
@click.option("--prometheus", "url", help="Learn from what this Prometheus holds, from --start to --end.")
@_credentials
@click.option("--start", type=_TIME, help="UTC.")
@click.option("--end", type=_TIME, help="UTC.")
@click.option("--out", type=_FOLDER, help="Where to keep the model.  [default: HOME/models]")
@click.option("--budget", default=0.1, type=_BUDGET, help="False alarms per 1,000 GPU-hours; `run` may want another.")
@click.option("--iterations", default=1000, type=click.IntRange(1), help="Optimiser steps.")
@click.option("--threads", default=max(1, (os.cpu_count() or 1) // 2), type=click.IntRange(1), help="CPU threads.")
@click.option("--seed", default=0, type=click.IntRange(0), help="The same seed and data give the same model.")
@click.option("--shard", default="1/1", callback=_shard, help="Learn from the i-th of n shares of the fleet only.")
@_no_edges
@click.option("--against", type=_MODEL, help="A model to compare with on the held-back data; noted on the card.")
@click.option("--recalibrate", type=_MODEL, help="Keep this model's network, refit its scales and thresholds.")
@_home
@_signals
@_step
def train_command(
    recordings: tuple[Path, ...],
    url: str | None,
    credentials_file: Path | None,
    start: datetime | None,
    end: datetime | None,
    out: Path | None,
    budget: float,
    iterations: int,
    threads: int,
    seed: int,
    shard: Shard,
    no_edges: tuple[str, ...],
    against: Path | None,
    recalibrate: Path | None,
    home: Path,
    signals_file: Path,
    step: float,
) -> None:
    """Learn a fleet's normal behaviour from recordings or from Prometheus. No labels are needed.

    Ctrl-C at any time: the same command goes on where this one stood. Learning holds 1.8 kB per GPU and step; of a
    large fleet a --shard teaches as much.
    """
    limit(threads)
    wanted = _or_exit(lambda: signals.load(signals_file))
    folder = out or home / "models"
    _or_exit(lambda: folder.mkdir(parents=True, exist_ok=True))
    click.echo("reading the telemetry ...", err=True)
    telemetry = _or_exit(
        lambda: _telemetry(wanted, recordings, url, credentials_file, start, end, step, shard, no_edges)
    )
    if recalibrate:
        judge, card = _or_exit(lambda: training.recalibrate(*registry.read(recalibrate), telemetry, budget))
    else:
        settings = Settings(budget, iterations, seed, checkpoint := folder / ".training.pt")
        state = wanted.activity, wanted.effort
        try:
            with click.progressbar(length=iterations, label="training", file=sys.stderr) as bar:
                judge, card = _or_exit(
                    lambda: train(telemetry, state, settings, lambda at, _: bar.update(at - bar.pos))
                )
        except KeyboardInterrupt:
            if checkpoint.exists():
                click.echo("\nstopped; the same command goes on from here", err=True)
            raise
    if against:
        error, before = _or_exit(lambda: training.compare(judge, registry.read(against)[0], telemetry))
        card = card.model_copy(update={"rebuild_error": error, "rebuild_error_before": before})
    written = _or_exit(lambda: registry.write(folder, judge, card))
    hours = (card.data_end - card.data_start).total_seconds() / 3600
    click.echo(f"{written}: learned from {card.gpus} GPUs over {hours:.1f} h in {len(judge.signals)} signals")


@cli.command("score", context_settings=_SETTINGS)
@click.option("--recording", "recordings", multiple=True, type=_FILE, help="The recording to score.")
@click.option("--prometheus", "url", help="Score what this Prometheus holds, from --start to --end.")
@_credentials
@click.option("--start", type=_TIME, help="UTC.")
@click.option("--end", type=_TIME, help="UTC.")
@click.option("--model", type=_FOLDER, required=True, help="A trained version, or a folder of them: the newest.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default="scores.parquet", help="Parquet file.")
@_no_edges
@_device
@_signals
@_step
def score_command(
    recordings: tuple[Path, ...],
    url: str | None,
    credentials_file: Path | None,
    start: datetime | None,
    end: datetime | None,
    model: Path,
    out: Path,
    no_edges: tuple[str, ...],
    device: torch.device,
    signals_file: Path,
    step: float,
) -> None:
    """Say what the service would have said of the past, at every step, into a file."""
    if len(recordings) > 1:
        raise click.UsageError("--recording can be given once: a scores file belongs to one recording")
    judge, card = _or_exit(lambda: registry.read(next(iter(registry.versions(model)), model)))
    wanted = _or_exit(lambda: signals.load(signals_file))
    telemetry = _or_exit(
        lambda: _telemetry(wanted, recordings, url, credentials_file, start, end, step, ingest.WHOLE, no_edges)
    )[0]
    if not {signal.name for signal in telemetry.signals} & {signal.name for signal in judge.signals}:
        raise click.ClickException(f"model {card.version} knows none of the signals that are to be scored")
    if not math.isclose(telemetry.step, card.step_seconds, rel_tol=0.01):
        click.echo(f"the model learned from steps of {card.step_seconds:g} s, these are {telemetry.step:g} s", err=True)
    found = scoring.score(telemetry, on(device, judge))
    with click.progressbar(found, length=len(telemetry.timestamps), label="scoring", file=sys.stderr) as steps:
        _or_exit(lambda: scoring.write(out, telemetry, steps))
    click.echo(out)


@cli.command("evaluate", context_settings=_SETTINGS)
@click.option("--data", required=True, help="synthetic, asd, smd, or a folder with recording.parquet, truth.parquet.")
@click.option("--seeds", default=5, type=click.IntRange(1), help="How many; of synthetic data each is another fleet.")
@click.option("--first-seed", default=1, type=click.IntRange(0), help="The others follow it.")
@click.option("--methods", "chosen", multiple=True, help="Only this one; repeatable.")
@click.option("--ablations/--no-ablations", default=False, help="Our method without one of its parts at a time.")
@click.option("--stress/--no-stress", default=False, help="Our method while telemetry goes missing.")
@click.option("--contamination/--no-contamination", default=False, help="Trained on 0, 5, 10 % of faults (synthetic).")
@click.option("--quiet-gpu-hours", default=0.0, type=_Finite(0), help="Of fault-free fleets (synthetic).")
@click.option("--nodes", default=12, type=click.IntRange(1), help="Nodes of 8 GPUs of a synthetic fleet.")
@click.option("--history-hours", default=24.0, type=_Finite(1), help="A synthetic fleet's, to train on.")
@click.option("--hours", default=10.0, type=_Finite(1), help="That a synthetic fleet is scored for.")
@click.option("--step", default=15.0, type=_Finite(1, 300), help="Seconds from one sample to the next.")
@click.option("--faults", default=36, type=click.IntRange(0), help="While a synthetic fleet is scored.")
@click.option("--budget", default=0.1, type=_Finite(1e-6, 1000), help="False alarms per 1,000 GPU-hours.")
@click.option("--iterations", default=1000, type=click.IntRange(1), help="Optimiser steps.")
@click.option("--threads", default=max(1, (os.cpu_count() or 1) // 2), type=click.IntRange(1), help="CPU threads.")
@click.option("--datasets", "source", type=_FOLDER, envvar="STETHOS_DATA", help="Folder that holds asd/, smd19/.")
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The report as JSON, brought up to date after each seed.",
)
@_signals
def evaluate(
    data: str,
    seeds: int,
    first_seed: int,
    budget: float,
    iterations: int,
    threads: int,
    nodes: int,
    history_hours: float,
    hours: float,
    step: float,
    faults: int,
    json_file: Path | None,
    signals_file: Path,
    **plan: Any,
) -> None:
    """Compare the detector with what else there is, on data whose truth only the measures see."""
    from detector.evaluation import comparison, report  # scikit-learn, which only this command needs
    from detector.evaluation.methods import Setup

    limit(threads)
    wanted = _or_exit(lambda: signals.load(signals_file))
    setup = Setup(Settings(budget, iterations), (wanted.activity, wanted.effort))
    shape = Synthetic(nodes=nodes, history_hours=history_hours, hours=hours, step=step, faults=faults)
    numbers = range(first_seed, first_seed + seeds)
    with tempfile.TemporaryDirectory() as folder:
        planned = comparison.Plan(data=data, seeds=numbers, shape=shape, folder=Path(folder), **plan)
        reports = comparison.compare(planned, wanted, setup, lambda line: click.echo(line, err=True))
        found: dict[str, object] = {}
        for _ in numbers:
            found = _or_exit(lambda: next(reports))
            if json_file:
                _or_exit(partial(json_file.write_text, json.dumps(found, indent=2) + "\n"))
    click.echo(report.text(found))


def _telemetry(
    wanted: Signals,
    recordings: tuple[Path, ...],
    url: str | None,
    credentials_file: Path | None,
    start: datetime | None,
    end: datetime | None,
    step: float,
    shard: Shard,
    no_edges: tuple[str, ...],
) -> list[Telemetry]:
    if bool(recordings) == bool(url):
        raise click.UsageError("say where the telemetry is: either --recording or --prometheus")
    edges = _edges(no_edges)
    if not url:
        return [replace(recording.read(path, wanted), edges=edges) for path in recordings]
    if not start or not end or start >= end:
        raise click.UsageError("--prometheus needs --start and a later --end")
    first, last = (time.replace(tzinfo=UTC).timestamp() for time in (start, end))
    with (
        Prometheus(url, timeout=60, credentials=promql.credentials(credentials_file)) as prometheus,
        click.progressbar(length=100, label="reading", file=sys.stderr) as bar,
    ):
        read = history.read(
            prometheus, wanted, first, last, step, shard, lambda part: bar.update(int(100 * part) - bar.pos)
        )
    return [replace(read, edges=edges)]


def _edges(without: tuple[str, ...]) -> frozenset[str] | None:
    return frozenset(KINDS) - set(without) if without else None


def _or_exit(action: Callable[[], _T]) -> _T:
    """An expected failure is one sentence on stderr and exit code 1, not a traceback."""
    try:
        return action()
    except _EXPECTED as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    cli(prog_name="python -m detector")
