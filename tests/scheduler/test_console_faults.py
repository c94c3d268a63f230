"""The fault buttons: a synthetic fleet, its agent and the scheduler, driven from the page."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from scheduler.server import listen

from .browser import console, launched, twice
from .processes import Process, Scheduler, until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scheduler]:
    """Two synthetic nodes of two GPUs."""
    home = tmp_path_factory.mktemp("faults")
    socket = listen("127.0.0.1", 0)
    port = socket.getsockname()[1]
    socket.close()
    fleet = f"http://127.0.0.1:{port}"
    options = ["--nodes", "2", "--gpus-per-node", "2", "--port", str(port)]
    with Process(["exporters", "synthetic", *options], home, home / "fleet.log"):
        server = Scheduler(home, "--synthetic", fleet)
        try:
            until(lambda: server.http.get("/v1/synthetic/faults").is_success, 90)
            with server.agent("--synthetic", fleet):
                until(lambda: server.get("/v1/fleet")["counts"]["nodes"]["healthy"] == 2, 90)
                yield server
        finally:
            server.close()


@pytest.fixture
def page(server: Scheduler) -> Iterator[Page]:
    with launched() as browser, console(browser, server) as found:
        yield found


def test_a_fault_is_put_on_the_job_moves_and_the_fault_is_cleared(page: Page, server: Scheduler) -> None:
    job = server.becomes(server.submit(name="mover", gpus=1, duration_seconds=60), "running")
    node, gpu = job["node"], job["placement"][0]["gpus"][0]
    page.locator(f"#fleet [data-node={node}] .gpu").nth(gpu).click()
    form = page.locator("#inject")
    expect(form.locator("[name=node]")).to_have_value(node)
    form.locator("[name=kind]").select_option("hot_inlet")
    expect(form.locator("[name=rack]")).to_be_visible()
    expect(form.locator("[name=gpu]")).to_be_hidden()
    form.locator("[name=kind]").select_option("off_the_bus")
    expect(form.locator("[name=gpu]")).to_have_value(str(gpu))
    page.get_by_role("button", name="Inject fault").press("Enter")
    expect(page.locator("#faults li")).to_contain_text(f"{node} · GPU {gpu} · severity 0.80")

    def moved() -> str | None:
        found = server.job(job["id"])
        return found["node"] if len(found["attempts"]) == 2 and found["node"] else None

    there = until(moved, 30)
    expect(page.locator("#running .place")).to_contain_text(there)
    expect(page.locator("#ran-here li", has_text="mover").last).to_contain_text(f"went on to {there}")
    page.get_by_role("button", name="Clear off the bus").press("Enter")
    expect(page.locator("#faults-none")).to_be_visible()
    assert server.get("/v1/synthetic/faults")["faults"] == []


def test_a_reset_mends_a_synthetic_node(page: Page, server: Scheduler) -> None:
    fault = {"kind": "thermal_paste", "node": "node-02", "gpu": 0, "severity": 0.5}
    server.post("/v1/synthetic/faults", fault, 201)
    page.locator("#fleet [data-node=node-02] .node-name").click()
    twice(page.locator("#reset"))
    until(lambda: server.get("/v1/synthetic/faults")["faults"] == [], 30)
    expect(page.locator("#changes")).to_contain_text("node reset: its faults were ended", timeout=15_000)


def test_a_synthetic_node_is_added_and_removed(page: Page, server: Scheduler) -> None:
    page.get_by_text("Add a synthetic node").click()
    form = page.locator("#add-node")
    form.get_by_label("Name").fill("node-09")
    form.get_by_label("GPUs").fill("1")
    form.get_by_role("button").click()
    tile = page.locator("#fleet [data-node=node-09]")
    expect(tile.locator(".gpu")).to_have_count(1, timeout=15_000)
    tile.locator(".node-name").click()
    page.locator("#remove-node").click()
    page.locator("#remove-node").click()
    expect(tile).to_have_count(0, timeout=15_000)
    assert len(server.get("/v1/nodes")["nodes"]) == 2
