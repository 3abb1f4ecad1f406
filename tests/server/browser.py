"""Headless Chromium on a served page; a request to any other place fails the test."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

SIZES = {"phone": (390, 844), "desktop": (1280, 800), "narrow": (320, 640)}
SCHEMES = ("light", "dark")
CHROMIUM = os.environ.get("TRIT_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)  # None: the one that Playwright has installed for itself
_ARGUMENTS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
_WITHOUT = "needs {}: CONTRIBUTING.md says where it comes from"


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; skips where Playwright or Chromium is missing."""
    api = pytest.importorskip("playwright.sync_api", reason=_WITHOUT.format("playwright"))
    with api.sync_playwright() as playwright:
        if CHROMIUM is None and not Path(playwright.chromium.executable_path).exists():
            pytest.skip(_WITHOUT.format("Chromium"))
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visit:
    """A page and what was asked for elsewhere, or went wrong in it."""

    page: Page
    address: str
    elsewhere: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def hear(self, kind: str, text: str) -> None:
        """What the browser says of the page; answers that are errors are the tests' own matter."""
        if kind == "error" and not text.startswith("Failed to load resource"):
            self.errors.append(text)

    def open(self, view: str = "chat") -> Page:
        """Show a view."""
        self.page.goto(f"http://{self.address}/#{view}")
        return self.page


def until(page: Page, expression: str) -> None:
    """Wait until an expression is true. Playwright's way needs `eval`, which the page forbids."""
    deadline = time.monotonic() + 60
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, f"it did not come to {expression}"
        page.wait_for_timeout(50)


@contextmanager
def visit(
    browser: Browser, address: str, size: str = "desktop", scheme: str = "light", **options: Any
) -> Iterator[Visit]:
    """A person with a new browser, whose network ends at the server."""
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, **options
    )
    context.set_default_timeout(30_000)
    made = Visit(context.new_page(), address)

    def hold(route: Route) -> None:
        if urlsplit(route.request.url).netloc == address:
            return route.continue_()
        made.elsewhere.append(route.request.url)
        route.abort()

    context.route("**/*", hold)
    made.page.on("pageerror", lambda error: made.errors.append(str(error)))
    made.page.on("console", lambda said: made.hear(said.type, said.text))
    try:
        yield made
    finally:
        context.close()
    assert made.elsewhere == [] and made.errors == []
