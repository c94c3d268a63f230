"""The console without a mouse, and for eyes that see little contrast or few colours."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from .browser import Scheme, console, launched
from .processes import Scheduler, until

CONTRAST = (Path(__file__).parent / "contrast.js").read_text()
#: Every colour step with every mark, on the cells that there are.
ALL_LOOKS = """() => document.querySelectorAll("#fleet .gpu").forEach((cell, index) => {
    const mark = ["", "busy", "cordoned", "unavailable", "cordoned probation"][Math.floor(index / 11)] ?? "busy";
    cell.className = `gpu s${index % 11} ${index % 11 === 10 ? "bad" : ""} ${mark}`;
})"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as found:
        yield found


@pytest.fixture(params=["light", "dark"])
def page(request: pytest.FixtureRequest, browser: Browser, scheduler: Scheduler) -> Iterator[Page]:
    """The console with something in each part: nodes, a drain, a cordon, an alert, jobs, a selection."""
    for index in range(7):
        scheduler.node(f"node-{index + 1:02}", rack=f"rack-{index // 4 + 1}")
    scheduler.post("/v1/nodes/node-07/drain", {"reason": "new fans"})
    scheduler.post("/v1/nodes/node-06/gpus/2/cordon", {"reason": "hot"})
    alert = {"status": "firing", "labels": {"alertname": "DetectorStale"}, "annotations": {"summary": "no scores"}}
    scheduler.post("/v1/alerts", {"alerts": [alert]})
    scheduler.submit(name="waits", gpus=9)
    scheduler.becomes(scheduler.submit(name="runs", gpus=1), "assigned")
    scheme: Scheme = request.param
    with console(browser, scheduler, scheme=scheme) as found:
        expect(found.locator("#fleet .gpu")).to_have_count(56)
        expect(found.locator("#alerts li").first).to_be_visible()
        found.locator("#fleet .gpu").first.click()
        found.evaluate(CONTRAST)
        yield found


def test_text_stands_out_from_what_is_behind_it(page: Page) -> None:
    expect(page.locator("#waiting .job")).to_have_count(1)
    looked, weak = page.evaluate("window.weakTexts()")
    assert looked > 100
    assert weak == []


def test_marks_edges_and_lines_stand_out_from_what_is_behind_them(page: Page) -> None:
    page.evaluate(ALL_LOOKS)
    looked, weak = page.evaluate("window.weakGraphics()")
    assert looked > 120
    assert weak == []


def test_no_two_facts_about_a_gpu_differ_by_colour_alone(page: Page) -> None:
    """Each mark of the legend has a shape of its own, and each cell says in words what it shows."""
    shapes = page.evaluate(
        """() => [...document.querySelectorAll(".legend > span:not(.ramp) .gpu")].map((cell) => {
            const [own, before, after] = [undefined, "::before", "::after"].map((part) => getComputedStyle(cell, part));
            const empty = own.backgroundColor === "rgba(0, 0, 0, 0)";
            return [before.content, after.content, own.backgroundImage !== "none", empty].join();
        })"""
    )
    assert len(shapes) == len(set(shapes)) == 6
    expect(
        page.get_by_role("button", name="node-06 GPU 2, cordoned, no score, maintenance, cordoned: hot")
    ).to_be_visible()


def test_the_keyboard_comes_to_everything_and_is_seen_there(page: Page) -> None:
    page.locator("h1").evaluate("title => { title.tabIndex = -1; title.focus(); }")
    stops = page.evaluate("window.markStops()")
    assert stops > 40
    for _ in range(2 * stops):
        page.keyboard.press("Tab")
        shown, what = page.evaluate("window.focusShown()")
        assert shown, what
        if not (left := page.evaluate("window.stopsLeft()")):
            break
    assert left == []


@pytest.mark.parametrize("page", ["light"], indirect=True)
def test_jobs_are_handled_by_keyboard_alone(page: Page) -> None:
    page.locator("#submit [name=gpus]").focus()
    page.keyboard.type("9")  # what is there is selected when a field is entered
    page.locator("#submit [name=name]").focus()
    page.keyboard.type("typed")
    page.keyboard.press("Enter")
    expect(page.locator("#submit-told")).to_have_text("typed is accepted.")
    page.get_by_label("Filter the jobs").focus()
    page.keyboard.type("typed")
    expect(page.locator("#waiting .job")).to_have_count(1)
    why = page.get_by_role("button", name="Why: typed")
    why.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    assert page.evaluate("document.activeElement.closest('dialog') !== null")
    page.keyboard.press("Escape")
    expect(why).to_be_focused()
    page.get_by_role("button", name="Cancel typed").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    expect(page.locator("#waiting .job")).to_have_count(0)
    expect(page.locator("#waiting-title")).to_be_focused()  # not the top of the page


@pytest.mark.parametrize("page", ["light"], indirect=True)
def test_nodes_and_gpus_are_handled_by_keyboard_alone(page: Page, scheduler: Scheduler) -> None:
    title = page.locator("#inspector-title")
    name = page.locator("#fleet [data-node=node-02] .node-name")
    name.focus()
    page.keyboard.press("Enter")
    expect(title).to_be_focused()
    expect(title).to_have_text("node-02")
    page.get_by_label("Reason for the drain").focus()
    for keys in ("Enter", "Enter"):
        page.keyboard.press(keys)
    assert scheduler.get("/v1/nodes/node-02")["drain"] is None  # a reason is asked for
    page.keyboard.type("dust")
    for _ in range(3):
        page.keyboard.press("Enter")
    expect(page.locator("#undrain")).to_be_visible()
    expect(title).to_be_focused()
    page.locator("#undrain").focus()
    for _ in range(2):
        page.keyboard.press("Enter")
    expect(page.locator("#drain")).to_be_visible()
    page.keyboard.press("Escape")
    expect(name).to_be_focused()
    page.keyboard.press("Tab")  # into the map, where the last GPU was
    page.locator("#fleet [data-node=node-02] .gpu").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    expect(title).to_be_focused()
    page.get_by_label("Reason for the cordon").focus()
    page.keyboard.type("odd noise")
    for _ in range(3):
        page.keyboard.press("Enter")
    expect(page.locator("#uncordon")).to_be_visible()
    assert scheduler.get("/v1/nodes/node-02")["gpus"][1]["cordon"]["reason"] == "odd noise"
    page.keyboard.press("Escape")
    expect(page.locator("#fleet [data-node=node-02] .gpu").nth(1)).to_be_focused()


@pytest.mark.parametrize("page", ["light"], indirect=True)
def test_the_load_is_set_by_keyboard_alone(page: Page, scheduler: Scheduler) -> None:
    def rate() -> float:
        return float(scheduler.get("/v1/workload")["jobs_per_minute"])

    page.get_by_label("Jobs submitted per minute").focus()
    page.keyboard.press("End")
    until(lambda: rate() == 50)
    page.get_by_role("button", name="Off 0").focus()
    page.keyboard.press("Space")
    until(lambda: rate() == 0)
