"""A real browser on the console. It notes what a page must not do: log an error, or ask anybody but its own server."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

import pytest
from playwright.sync_api import Browser, Locator, Page, ViewportSize, expect, sync_playwright

from .processes import Scheduler

QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
#: A busy machine is not a broken page.
expect.set_options(timeout=20_000)

Scheme = Literal["light", "dark"]
DESKTOP = ViewportSize(width=1440, height=900)
PHONE = ViewportSize(width=390, height=844)


@cache
def executable() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


@contextmanager
def launched() -> Iterator[Browser]:
    path = executable()
    if path is None:
        pytest.skip("no chromium or chrome on PATH")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(QUIET))
        yield browser
        browser.close()


@dataclass
class Watch:
    """What a page said and asked for."""

    errors: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


@contextmanager
def console(
    browser: Browser,
    scheduler: Scheduler,
    size: ViewportSize = DESKTOP,
    expected: str = "$^",
    scheme: Scheme = "light",
    patience_seconds: float = 30.0,
) -> Iterator[Page]:
    """The console after a login, live. Errors other than the `expected` ones (a pattern) fail the test."""
    watch = Watch()
    context = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")
    context.set_default_timeout(patience_seconds * 1000)
    page = context.new_page()
    page.on("console", lambda said: watch.errors.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: watch.errors.append(str(error)))
    page.on("request", lambda request: watch.asked.append(request.url))
    page.goto(f"{scheduler.url}/login?token={scheduler.token}")
    page.wait_for_selector("#connection.live")
    yield page
    context.close()
    assert watch.asked
    assert [url for url in watch.asked if not url.startswith(f"{scheduler.url}/")] == []
    unexpected = [error for error in watch.errors if not re.search(expected, error)]
    assert unexpected == []


def twice(button: Locator) -> None:
    """What changes something asks first."""
    button.click()
    expect(button).to_have_class(re.compile("armed"))
    button.click()
