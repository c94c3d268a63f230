"""The console as it looks while a GPU goes bad. Called by scripts/screenshots, which sets the variables."""

import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

DOCS = Path(__file__).parents[1] / "docs"
URL = f"http://127.0.0.1:{os.environ['SCHEDULER_PORT']}"
TOKEN = (Path(os.environ["STETHOS_HOME"]) / "token").read_text().strip()
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FAULT = {"kind": "thermal_paste", "node": "node-03", "gpu": 3, "severity": 0.9}
JOBS_PER_MINUTE = 15
PATIENCE_SECONDS = 600
#: So that the charts have something to show.
WATCH_SECONDS = float(os.environ.get("WATCH_SECONDS", "90"))
DESKTOP = ViewportSize(width=1440, height=1000)
PHONE = ViewportSize(width=390, height=844)


def main() -> None:
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        sys.exit("scripts/screenshots: no chromium or chrome on PATH")
    api = httpx.Client(base_url=URL, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=10)
    with api, bad_gpu(api), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        shoot(browser)
        browser.close()


@contextmanager
def bad_gpu(api: httpx.Client) -> Iterator[None]:
    """Work for the fleet, and a fault until the detector has seen it; all as before afterwards."""
    rate = api.get("/v1/workload").raise_for_status().json()["jobs_per_minute"]
    api.put("/v1/workload", json={"jobs_per_minute": JOBS_PER_MINUTE}).raise_for_status()
    fault = api.post("/v1/synthetic/faults", json=FAULT).raise_for_status().json()["id"]
    try:
        end = time.monotonic() + PATIENCE_SECONDS
        while (score(api) or 0) < 1:
            if time.monotonic() > end:
                sys.exit(f"scripts/screenshots: the fault was not seen within {PATIENCE_SECONDS} s")
            time.sleep(2)
        yield
    finally:
        api.delete(f"/v1/synthetic/faults/{fault}")
        api.put("/v1/workload", json={"jobs_per_minute": rate})


def score(api: httpx.Client) -> float | None:
    node = api.get(f"/v1/nodes/{FAULT['node']}").raise_for_status().json()
    found: float | None = node["gpus"][FAULT["gpu"]]["score"]
    return found


def shoot(browser: Browser) -> None:
    pages = {
        "console": opened(browser, DESKTOP, "light"),
        "console-dark": opened(browser, DESKTOP, "dark"),
        "console-phone": opened(browser, PHONE, "light"),
    }
    time.sleep(WATCH_SECONDS)
    for name, page in pages.items():
        page.locator(f"#fleet [data-node={FAULT['node']}] .gpu").nth(3).click()
        page.locator("#changes li").first.wait_for()
        page.mouse.move(0, 0)
        page.screenshot(path=DOCS / f"{name}.png")
    page = pages["console"]
    page.locator("#running .ask").first.click()
    page.locator("#decision-body table").wait_for()
    page.screenshot(path=DOCS / "console-decision.png")


def opened(browser: Browser, size: ViewportSize, scheme: str) -> Page:
    dark = scheme == "dark"
    context = browser.new_context(viewport=size, color_scheme="dark" if dark else "light", reduced_motion="reduce")
    page = context.new_page()
    page.goto(f"{URL}/login?token={TOKEN}")
    page.wait_for_selector("#connection.live")
    return page


main()
