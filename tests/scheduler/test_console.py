"""The console as a person meets it: a real browser on a real scheduler."""

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from .browser import PHONE, console, launched, twice
from .processes import Json, Scheduler, until

HOSTILE = "<img src=x onerror=\"document.title='taken'\">"
#: From the scheduler's note of an event to its trace on the page.
EVENT_MILLISECONDS = 500.0


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as found:
        yield found


@pytest.fixture
def page(browser: Browser, scheduler: Scheduler) -> Iterator[Page]:
    """The console with four nodes of eight GPUs in two racks."""
    for index in range(4):
        scheduler.node(f"node-{index + 1:02}", rack=f"rack-{index // 2 + 1}")
    with console(browser, scheduler) as found:
        expect(found.locator("#fleet .gpu")).to_have_count(32)
        yield found


def watch_for(page: Page, inside: str, wanted: str) -> Callable[[], float]:
    """Notes when `wanted` first matches inside an element; the answer waits for it, as a Unix time in ms."""
    page.evaluate(
        """([inside, wanted]) => {
            window.seenAt = null;
            new MutationObserver(() => {
                window.seenAt ??= document.querySelector(wanted) && Date.now();
            }).observe(document.querySelector(inside), { childList: true, subtree: true, attributes: true });
        }""",
        [inside, wanted],
    )
    return lambda: float(until(lambda: page.evaluate("window.seenAt"), 5))


def milliseconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp() * 1000


def test_the_login_leads_to_the_fleet(page: Page, scheduler: Scheduler) -> None:
    assert page.url == f"{scheduler.url}/"
    expect(page.locator(".rack h3")).to_have_text(["rack-1", "rack-2"])
    expect(page.locator("#nodes-count")).to_have_text("4")
    expect(page.locator("#gpus-free")).to_have_text("32")
    expect(page.locator("#health")).to_have_text("Health source off")
    expect(page.get_by_role("button", name="node-03 GPU 5, free, no score")).to_be_visible()


def test_without_a_login_nothing_is_shown(browser: Browser, scheduler: Scheduler) -> None:
    answer = httpx.get(scheduler.url)
    assert answer.status_code == 401
    assert "fleet" not in answer.text.lower()


def test_the_login_page_takes_the_token_and_keeps_it_out_of_the_address(browser: Browser, scheduler: Scheduler) -> None:
    context = browser.new_context(viewport=PHONE)
    page = context.new_page()
    page.goto(scheduler.url)
    page.get_by_label("Token").fill("<b>wrong</b>")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_have_text("That token is not valid here.")
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    page.get_by_label("Token").fill(scheduler.token)
    page.keyboard.press("Enter")
    page.wait_for_selector("#connection.live")
    assert page.url == f"{scheduler.url}/"
    context.close()


def test_an_event_is_on_the_page_at_once(page: Page, scheduler: Scheduler) -> None:
    page.evaluate("window.untouched = true")
    seen = watch_for(page, "#running", "#running .job .place")
    started = milliseconds(scheduler.becomes(scheduler.submit(name="quick-fox", gpus=2), "assigned")["submitted_at"])
    assert seen() - started < EVENT_MILLISECONDS
    row = page.locator("#running .job")
    expect(row).to_contain_text("quick-fox")
    expect(row).to_contain_text("sleep · 2 GPUs · normal")
    expect(page.locator("#fleet .gpu.busy")).to_have_count(2)
    expect(page.locator("#events li").first).to_contain_text("quick-fox assigned")
    assert page.evaluate("window.untouched")


def test_a_waiting_job_says_why_and_can_be_cancelled(page: Page, scheduler: Scheduler) -> None:
    job = scheduler.submit(name="too-wide", gpus=9)
    row = page.locator(f"#waiting [data-job={job['id']}]")
    expect(row).to_contain_text("needs 9 GPUs on one node")
    expect(row.locator(".cancel")).to_have_accessible_name("Cancel too-wide")
    twice(row.locator(".cancel"))
    expect(page.locator(f"#finished [data-job={job['id']}]")).to_contain_text("⊘ cancelled")
    assert scheduler.job(job["id"])["state"] == "cancelled"


def test_the_form_submits(page: Page, scheduler: Scheduler) -> None:
    form = page.locator("#submit")
    form.get_by_label("Type").select_option("compute")
    form.get_by_label("GPUs").fill("3")
    form.get_by_label("Priority").select_option("high")
    form.get_by_label("Seconds").fill("400")
    form.get_by_label("Name").fill("from-the-form")
    page.get_by_role("button", name="Submit job").click()
    expect(page.locator("#submit-told")).to_have_text("from-the-form is accepted.")
    (job,) = scheduler.get("/v1/jobs?limit=1")["jobs"]
    assert (job["type"], job["gpus"], job["priority"], job["duration_seconds"]) == ("compute", 3, "HIGH", 400.0)
    assert job["timeout_seconds"] > 400


def test_a_refusal_is_shown_in_the_words_of_the_api(browser: Browser, scheduler: Scheduler) -> None:
    with console(browser, scheduler, expected="422") as page:
        page.locator("#submit").get_by_label("GPUs").fill("100001")
        page.get_by_role("button", name="Submit job").click()
        expect(page.locator("#submit-told")).to_contain_text("less than or equal to 100000, not 100001")


def test_a_node_is_drained_by_a_second_click(page: Page, scheduler: Scheduler) -> None:
    def node() -> Json:
        return scheduler.get("/v1/nodes/node-02")

    tile = page.locator("#fleet [data-node=node-02]")
    tile.locator(".node-name").click()
    button = page.locator("#drain")
    button.click()
    expect(button).not_to_have_class(re.compile("armed"))  # a drain needs a reason first
    page.get_by_label("Reason for the drain").fill("new fans")
    button.click()
    assert node()["state"] == "healthy"
    button.click()
    expect(tile).to_have_class("node is-drained")
    assert node()["drain"]["reason"] == "new fans"
    expect(page.locator("#attention")).to_contain_text("drained: new fans")
    twice(page.locator("#undrain"))
    expect(tile).to_have_class("node is-healthy")
    assert node()["drain"] is None


def test_a_gpu_is_cordoned_and_released(page: Page, scheduler: Scheduler) -> None:
    cell = page.locator("#fleet [data-node=node-01] .gpu").nth(5)
    cell.click()
    page.get_by_label("Reason for the cordon").fill("odd noise")
    twice(page.locator("#cordon"))
    expect(cell).to_have_class("gpu unknown cordoned maintenance")
    expect(cell).to_have_accessible_name("node-01 GPU 5, cordoned, no score, maintenance, cordoned: odd noise")
    expect(page.locator("#gpu-facts")).to_contain_text("maintenance: a person keeps it out of service")
    expect(page.locator("#changes")).to_contain_text("taken out of service · by a person · odd noise")
    assert scheduler.get("/v1/nodes/node-01")["gpus"][5]["cordon"]["owner"] == "person"
    twice(page.locator("#uncordon"))
    expect(cell).to_have_class("gpu unknown")


def test_a_node_is_paused_for_an_hour_and_resumed(page: Page, scheduler: Scheduler) -> None:
    tile = page.locator("#fleet [data-node=node-03]")
    tile.locator(".node-name").click()
    page.get_by_label("Reason for the pause").fill("firmware")
    page.get_by_label("How long").select_option("1 hour")
    twice(page.locator("#pause"))
    expect(tile).to_have_class("node is-held")
    expect(page.locator("#node-facts")).to_contain_text("firmware")
    pause = scheduler.get("/v1/nodes/node-03")["pause"]
    assert milliseconds(pause["until"]) - milliseconds(pause["since"]) == pytest.approx(3_600_000, abs=1000)
    expect(page.locator("#undrain")).to_be_hidden()
    twice(page.locator("#resume"))
    expect(tile).to_have_class("node is-healthy")
    expect(page.locator("#pause")).to_be_visible()
    assert scheduler.get("/v1/nodes/node-03")["pause"] is None
    expect(page.locator("#reset")).to_be_hidden()  # there is nothing synthetic about it


def test_a_job_says_why_it_waits_and_why_it_is_where_it_is(page: Page, scheduler: Scheduler) -> None:
    placed = scheduler.becomes(scheduler.submit(name="fits", gpus=2), "assigned")
    scheduler.submit(name="waits", gpus=9)
    page.get_by_role("button", name="Why: waits").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("#decision-said")).to_contain_text("It waits: needs 9 GPUs on one node")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    page.get_by_role("button", name="Why: fits").click()
    expect(dialog.locator("#decision-said")).to_contain_text(f"Placed on {placed['node']} · 0, 1")
    expect(dialog.locator("tr.chosen th")).to_have_text(placed["node"])
    expect(dialog.locator("ol li")).to_contain_text(placed["node"])


def test_the_jobs_are_filtered(page: Page, scheduler: Scheduler) -> None:
    for name in ("red-fox", "red-owl", "blue-fox"):
        scheduler.submit(name=name, gpus=9)
    expect(page.locator("#waiting .job")).to_have_count(3)
    page.get_by_label("Filter the jobs").fill("FOX")
    expect(page.locator("#waiting .job b")).to_have_text(["blue-fox", "red-fox"])
    expect(page.locator("#lane-waiting")).to_have_text("2 of 3")
    page.get_by_label("Filter the jobs").fill("")
    expect(page.locator("#waiting .job")).to_have_count(3)


def test_what_the_automation_holds_is_shown_and_overruled(page: Page, scheduler: Scheduler) -> None:
    expect(page.locator("#automation-mode")).to_have_text("Acting")
    expect(page.locator("#automation-said")).to_have_text("It holds nothing.")
    alert = {
        "status": "firing",
        "labels": {"alertname": "GpuAnomalous", "node": "node-03", "gpu": "2", "severity": "critical"},
        "annotations": {"summary": "runs hot"},
        "endsAt": "0001-01-01T00:00:00Z",
    }
    scheduler.post("/v1/alerts", {"alerts": [alert]})
    hold = page.locator("#holds li")
    expect(hold).to_contain_text("node-03 · 2")
    expect(hold).to_contain_text("by alert")
    expect(page.locator("#breaker li").first).to_contain_text("1 of 8 allowed")
    twice(page.get_by_role("button", name="Overrule: node-03 · 2 back into service"))
    expect(hold).to_have_count(0)
    assert scheduler.get("/v1/nodes/node-03")["gpus"][2]["cordon"] is None


def test_an_idle_node_is_removed(page: Page, scheduler: Scheduler) -> None:
    page.locator("#fleet [data-node=node-04] .node-name").click()
    twice(page.locator("#remove-node"))
    expect(page.locator("#fleet [data-node=node-04]")).to_have_count(0)
    expect(page.locator("#inspector")).to_be_hidden()
    assert len(scheduler.get("/v1/nodes")["nodes"]) == 3


def test_there_are_no_fault_buttons_where_the_fleet_is_not_synthetic(page: Page) -> None:
    expect(page.locator("#fleet .gpu").first).to_be_visible()
    expect(page.locator("#faults-panel")).to_be_hidden()


def test_lines_are_drawn_of_what_was(page: Page) -> None:
    chart = page.get_by_role("img", name=re.compile("GPUs with a job: 0 %, between 0 % and 0 %"))
    expect(chart).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("Worst score: no value"))).to_be_visible()
    until(lambda: "L" in str(page.locator("#chart-wait .line").get_attribute("d")))


def test_the_slider_sets_the_rate(page: Page, scheduler: Scheduler) -> None:
    def rate() -> float:
        return float(scheduler.get("/v1/workload")["jobs_per_minute"])

    page.get_by_label("Jobs submitted per minute").press("End")
    until(lambda: rate() == 50)
    presets = scheduler.get("/v1/workload")["presets"]
    buttons = page.get_by_role("group", name="Presets").get_by_role("button")
    expect(buttons).to_have_text([f"{name}{rate:g}" for name, rate in presets.items()])
    page.get_by_role("button", name="Off 0").click()
    until(lambda: rate() == 0)
    scheduler.http.put("/v1/workload", json={"jobs_per_minute": 0.5}).raise_for_status()
    expect(page.locator("#rate-shown")).to_have_text("0.5")
    expect(page.get_by_role("button", name="Light 0.5")).to_have_attribute("aria-pressed", "true")
    scheduler.http.put("/v1/workload", json={"jobs_per_minute": 0}).raise_for_status()
    expect(page.locator("#rate-shown")).to_have_text("off")


def test_names_are_text(page: Page, scheduler: Scheduler) -> None:
    scheduler.submit(name=HOSTILE, gpus=9)
    scheduler.post("/v1/nodes/node-01/gpus/0/cordon", {"reason": HOSTILE})
    alert = {
        "status": "firing",
        "labels": {"alertname": HOSTILE, "node": "node-01"},
        "annotations": {"summary": HOSTILE},
    }
    scheduler.post("/v1/alerts", {"alerts": [alert]})
    expect(page.locator("#waiting .job b")).to_have_text(HOSTILE)
    expect(page.locator("#alerts b").first).to_have_text(HOSTILE)
    expect(page.locator("#events b", has_text=HOSTILE)).to_have_count(2)
    page.locator("#fleet [data-node=node-01] .gpu").first.click()
    expect(page.locator("#gpu-facts")).to_contain_text(HOSTILE)
    assert page.locator("img[src=x]").count() == 0
    assert page.title() == "Stethos"


def test_the_fleet_is_walked_by_keyboard(page: Page) -> None:
    def focused() -> str:
        return str(page.evaluate("document.activeElement.getAttribute('aria-label')")).partition(",")[0]

    page.locator("#fleet [data-node=node-01] .gpu").first.focus()
    walk = {
        "ArrowRight": "node-01 GPU 1",
        "End": "node-01 GPU 7",
        "ArrowDown": "node-03 GPU 7",
        "ArrowLeft": "node-03 GPU 6",
        "ArrowUp": "node-01 GPU 6",
        "Home": "node-01 GPU 0",
    }
    for key, there in walk.items():
        page.keyboard.press(key)
        assert focused() == there
    page.keyboard.press("Enter")
    expect(page.locator("#inspector-title")).to_have_text("node-01 · GPU 0")
    assert page.locator("#fleet .gpu[tabindex='0']").count() == 1


def test_a_phone_shows_all_of_it(browser: Browser, scheduler: Scheduler) -> None:
    scheduler.node("a-node-with-quite-a-long-name.in-some.domain.example", rack="rack-1")
    scheduler.submit(name="a-name-without-any-place-to-break-" * 4, gpus=9)
    with console(browser, scheduler, PHONE) as page:
        expect(page.locator("#waiting .job")).to_have_count(1)
        page.locator("#fleet .gpu").first.click()
        expect(page.locator("#inspector")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


def test_a_lost_connection_is_told_and_made_up_for(browser: Browser, tmp_path: Path) -> None:
    server = Scheduler(tmp_path)
    try:
        server.node("n")
        with console(browser, server, expected="net::ERR_") as page:
            server.process.__exit__()
            expect(page.locator("#connection")).to_have_text("Connection lost")
            expect(page.locator("#banner")).to_contain_text("cannot be reached")
            server.start(server.port)
            job = server.submit(name="meanwhile", gpus=9)
            expect(page.locator("#connection")).to_have_text("Live", timeout=10_000)
            expect(page.locator(f"#waiting [data-job={job['id']}]")).to_be_visible()
            expect(page.locator("#events li", has_text="meanwhile queued")).to_have_count(1)
            expect(page.locator("#banner")).to_be_hidden()
    finally:
        server.close()


def test_a_thousand_nodes_stay_responsive(browser: Browser, tmp_path: Path) -> None:
    server = Scheduler(tmp_path, "--node-timeout", "600")
    try:
        names = [f"node-{index:03}" for index in range(1000)]

        def register(index: int) -> None:
            server.post("/v1/nodes", {"node": names[index], "gpus": 8, "rack": f"rack-{index // 8}"}, 201)

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(register, range(1000)))
        server.beat({name: [] for name in names})
        began = time.monotonic()
        with console(browser, server) as page:
            expect(page.locator("#fleet .gpu")).to_have_count(8000)
            assert time.monotonic() - began < 10
            seen = watch_for(page, "#fleet", "[data-node=node-005].is-drained")
            since = server.post("/v1/nodes/node-005/drain", {"reason": "test"})["drain"]["since"]
            assert seen() - milliseconds(since) < EVENT_MILLISECONDS
            # What changes is read, not the whole fleet.
            asked: list[str] = []
            page.on("request", lambda request: asked.append(request.url.removeprefix(server.url)))
            server.post("/v1/nodes/node-006/drain", {"reason": "test"})
            expect(page.locator("#fleet [data-node=node-006]")).to_have_class("node is-drained")
            until(lambda: page.evaluate("true") and "/v1/nodes/node-006" in asked)
            assert "/v1/fleet?detail=none" in asked
    finally:
        server.close()
