"""Waits until the started stack is truly ready, saying so process by process, and prints where everything is.

Called by scripts/up and scripts/first-model, which set the variables.
"""

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
import httpx

HOME = Path(os.environ["STETHOS_HOME"])
STARTED = time.time()
PATIENCE_SECONDS = 180
PROBES = {
    "prometheus": "/-/ready",
    "alertmanager": "/-/ready",
    "exporters": "/readyz",
    "detector": "/readyz",
    "scheduler": "/readyz",
    "grafana": "/api/health",
}


def address(process: str) -> str:
    return f"http://127.0.0.1:{os.environ[f'{process.upper()}_PORT']}"


def ask(promql: str) -> dict[str, str] | None:
    """The first sample of the answer: its labels and, as `value`, its value. None where there is none yet."""
    try:
        answer = httpx.get(f"{address('prometheus')}/api/v1/query", params={"query": promql}, timeout=5)
        result = answer.raise_for_status().json()["data"]["result"]
    except httpx.HTTPError:
        return None
    return {**result[0]["metric"], "value": result[0]["value"][1]} if result else None


def unready(process: str) -> str | None:
    """Why the process cannot be used yet; None when it can."""
    try:
        answer = httpx.get(address(process) + PROBES[process], timeout=5)
    except httpx.HTTPError as error:
        return str(error)
    return None if answer.is_success else answer.text.strip()


def unscored(gpus: int) -> str | None:
    """Why the loop is not closed yet. All `gpus` must have a score; with 0, as for an unknown fleet, any will do.

    Prometheus may still hold the scores of an earlier run, so only samples of this one count.
    """
    scored = int(float((ask(f"count(timestamp(stethos_anomaly_score) > {STARTED})") or {"value": "0"})["value"]))
    done = scored == gpus if gpus else scored > 0
    return None if done else f"{scored} of {gpus or 'its'} GPUs have a score"


def wait(what: str, shown: str, reason: Callable[[], str | None], deadline: float) -> None:
    while (why := reason()) is not None:
        if time.monotonic() > deadline:
            raise click.ClickException(f"{what} is not ready after {PATIENCE_SECONDS} s: {why}")
        time.sleep(0.2)
    click.echo(f"  {click.style('✓', fg='green')} {what:<13} {click.style(shown, dim=True)}")


def frame(lines: list[str]) -> str:
    width = max(map(len, lines))
    middle = [f"│ {line:<{width}} │" for line in lines]
    return "\n".join([f"╭{'─' * (width + 2)}╮", *middle, f"╰{'─' * (width + 2)}╯"])


def summary(processes: list[str]) -> str:
    rows = [f"{name:<13} {address(name)}" for name in processes]
    login = f"{address('scheduler')}/login?token={(HOME / 'token').read_text().strip()}"
    (HOME / "addresses").write_text("\n".join([f"  {row}" for row in rows]) + "\n")
    return frame(["Stethos is listening.", "", *rows, "", "Log in:", login])


def next_commands(synthetic: bool) -> str:
    home = HOME.relative_to(Path.cwd()) if HOME.is_relative_to(Path.cwd()) else HOME
    bearer = f'-H "Authorization: Bearer $(cat {home}/token)"'
    fault = '{"kind":"ecc_creep","node":"node-01","gpu":3,"severity":0.8}'
    commands = [
        f"""curl {bearer} {address("scheduler")}/v1/jobs --json '{{"type":"matrix","gpus":1,"priority":"HIGH"}}'""",
        f"curl {bearer} {address('exporters')}/v1/faults --json '{fault}'",
        f"curl {address('prometheus')}/api/v1/query --data-urlencode 'query=topk(5, stethos_anomaly_score)'",
    ]
    shown = "\n".join(f"  {command}" for command in (commands if synthetic else commands[2:]))
    return f"\nTry:\n{shown}\n\nLogs: {home}/log/stack.log    Ctrl-C stops everything."


@click.command()
@click.argument("processes", nargs=-1)
@click.option("--model", is_flag=True, help="Wait only for the detector to use a trained model, and name it.")
def main(processes: tuple[str, ...], model: bool) -> None:
    """Wait for PROCESSES, then for a score of every GPU."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    in_use = 'stethos_detector_model_info{stage="model"}'
    if model:
        wait("detector", "first model in use", lambda: None if ask(in_use) else "no model is used", deadline)
        return
    served = [name for name in processes if name in PROBES]
    gpus = int(os.environ["GPUS"])
    click.echo("Starting:")
    for name in served:
        wait(name, address(name), partial(unready, name), deadline)
    wait("scores", f"{gpus or 'all'} GPUs", lambda: unscored(gpus), deadline)
    click.echo(summary(served))
    click.echo(next_commands(synthetic=gpus > 0))


if __name__ == "__main__":
    main()
