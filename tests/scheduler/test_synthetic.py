"""A synthetic fleet's agent against the real exporter: jobs are load, and a dead GPU is no job's fault."""

from collections.abc import Iterator

import pytest

from .processes import Scheduler, until
from .synthetic import Fleet


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scheduler]:
    found = Scheduler(tmp_path_factory.mktemp("synthetic"), "--node-timeout", "3")
    yield found
    found.close()


@pytest.fixture(scope="module")
def fleet(server: Scheduler) -> Iterator[Fleet]:
    with Fleet(server.home, server.token) as found, server.agent("--synthetic", found.url):
        until(lambda: server.get("/v1/fleet")["counts"]["nodes"]["healthy"] == 2, 60)
        yield found


def test_a_job_is_load_on_its_gpus_while_it_runs(server: Scheduler, fleet: Fleet) -> None:
    job = server.becomes(server.submit(type="matrix", gpus=2, duration_seconds=2), "running")
    (load,) = until(fleet.loads)
    assert (load["node"], load["gpus"], load["kind"]) == (job["node"], job["placement"][0]["gpus"], "matrix")
    assert load["job"] == job["id"]
    server.becomes(job, "succeeded")
    until(lambda: not fleet.loads())


def test_a_cancelled_job_is_load_no_more(server: Scheduler, fleet: Fleet) -> None:
    job = server.becomes(server.submit(duration_seconds=60), "running")
    until(fleet.loads)
    server.post(f"/v1/jobs/{job['id']}/cancel")
    until(lambda: not fleet.loads())


def test_a_job_told_to_fail_fails_for_good(server: Scheduler, fleet: Fleet) -> None:
    job = server.submit(type="fault", duration_seconds=1, parameters={"after_seconds": 0.2})
    assert server.becomes(job, "failed")["reason"] == "failed as told after 0.2 s"


def test_a_gpu_that_falls_off_the_bus_sends_its_job_elsewhere(server: Scheduler, fleet: Fleet) -> None:
    job = server.becomes(server.submit(duration_seconds=5), "running")
    until(fleet.loads)
    where = job["placement"][0]
    fault = fleet.fault("off_the_bus", where["node"], where["gpus"][0])
    try:
        ended = server.becomes(job, "succeeded", "failed", seconds=25)
    finally:
        fleet.http.delete(f"/v1/faults/{fault}")
    assert ended["state"] == "succeeded"
    assert ended["retries_used"] == 1
    assert ended["node"] != where["node"]
    assert "off the bus" in ended["attempts"][0]["reason"].replace("_", " ")


def test_nodes_come_and_go_with_the_fleet(server: Scheduler, fleet: Fleet) -> None:
    answer = fleet.http.post("/v1/nodes", json={"node": "node-09", "gpus": 4, "model": "H100"})
    assert answer.status_code == 201, answer.text

    def names() -> set[str]:
        return {node["node"] for node in server.get("/v1/nodes")["nodes"]}

    until(lambda: "node-09" in names())
    fleet.http.delete("/v1/nodes/node-09")
    until(lambda: "node-09" not in names())
