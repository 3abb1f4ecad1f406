"""Card and accessibility, in a browser: axe at three widths and in both schemes, and keys."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

import small_model
from server import live
from server.browser import SCHEMES, SIZES, chromium, until, visit
from server.test_model_card import with_card

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WRITTEN = """# A

`b` [c](https://d.test)

> f

```py
def g(): return 'h'  # 1
```

|i|j|
|-|-|
|1|2|"""
TALK = {
    "title": "All there is",
    "first": 0,
    "nodes": [
        {"role": "user", "content": "Show me.", "parent": -1, "next": 1},
        {
            "role": "assistant", "model": "talker", "parent": 0, "reasoning": "Let me see.",
            "content": WRITTEN, "stats": {"tokens": 3, "context": 40, "rate": 2.5, "first": 0.5},
        },
        {"role": "assistant", "content": "Or so.", "parent": 0, "error": "It broke."},
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("models")
    paths = {"talker": live.write(folder), "carded": with_card(folder / "carded.gguf")}
    models = {name: live.opener(path) for name, path in paths.items()}
    with live.served(models, paths=paths) as (address, _):
        yield address


def empty(page: Page) -> None:
    page.locator(".hello").wait_for()


def talk(page: Page) -> None:
    page.evaluate("talk => localStorage.setItem('trit.talk.a', talk)", json.dumps(TALK))
    page.evaluate("localStorage.setItem('trit.shown', 'a')")
    page.reload()
    page.get_by_text("tokens of context").wait_for()
    page.locator("summary").click()


def settings(page: Page) -> None:
    page.get_by_role("button", name="Settings").click()
    page.locator("#set-temperature").fill("9")


def talks(page: Page) -> None:
    talk(page)
    if page.get_by_role("button", name="Conversations").is_visible():
        page.get_by_role("button", name="Conversations").click()


def keys(page: Page) -> None:
    page.keyboard.press("Control+/")


def card(page: Page) -> None:
    page.get_by_role("link", name="Card").click()
    page.get_by_role("heading", name="talker").wait_for()
    page.locator("summary", has_text="tensors").click()


def quality(page: Page) -> None:
    card(page)
    page.locator("#view-card").get_by_label("Model", exact=True).select_option("carded")
    page.get_by_role("region", name="Quality").wait_for()


STATES = [empty, talk, settings, talks, keys, card, quality]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("size", ["phone", "desktop"])
def test_nothing_that_axe_calls_serious(
    browser: Browser, address: str, size: str, scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe").Axe()
    for state in STATES:
        with visit(browser, address, size, scheme) as made:
            page = made.open()
            empty(page)
            state(page)
            found = axe.run(page)
            bad = [v for v in found.response["violations"] if v["impact"] != "minor"]
            assert not bad, f"{state.__name__}: {found.generate_report()}"


@pytest.mark.parametrize("size", SIZES)
def test_it_is_never_wider_than_the_screen(browser: Browser, address: str, size: str) -> None:
    for state in STATES:
        with visit(browser, address, size) as made:
            page = made.open()
            empty(page)
            state(page)
            wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, f"{state.__name__} is {wide} pixels too wide"


def test_the_card_draws_every_matrix(browser: Browser, address: str) -> None:
    with visit(browser, address) as made:
        page = made.open("card")
        page.get_by_role("heading", name="talker").wait_for()
        facts = live.ask(address, "/card?model=talker").json
        figures = page.locator(".figures").first.inner_text()
        assert "bits per weight" in figures and f"{facts['bits_per_weight']:.3g}" in figures
        grid = page.get_by_role("group", name="Bits by layer").get_by_role("row")
        assert grid.count() == 1 + small_model.LAYERS
        assert grid.nth(1).locator("td").all_text_contents() == ["16 bits, F16"] * 7
        assert page.locator(".apart").inner_text().startswith("token_embd")
        page.locator("summary", has_text="tensors").click()
        rows = page.get_by_role("group", name="All tensors").get_by_role("row")
        assert rows.count() == 1 + len(facts["tensors"])
        assert "carries no quality card" in page.locator(".sheet").inner_text()


def test_the_quality_card(browser: Browser, address: str) -> None:
    with visit(browser, address) as made:
        page = made.open("card")
        page.locator("#view-card").get_by_label("Model", exact=True).select_option("carded")
        words = page.get_by_role("region", name="Quality").inner_text()
        assert "0.25" in words and "25%" in words and "1,000 tokens" in words
        assert "±" not in words  # the file's own are not numbers


def test_by_keys_alone(browser: Browser, address: str) -> None:
    with visit(browser, address) as made:
        page = made.open()
        empty(page)
        focused = "document.activeElement.textContent || document.activeElement.ariaLabel"
        page.locator(".skip").focus()  # where a page begins
        seen = []
        for _ in range(15):
            seen.append(page.evaluate(focused))
            ring = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert ring != "none" or seen[-1] == "Message", seen  # its box has the ring
            page.keyboard.press("Tab")
        assert seen[:4] == ["Skip to the content", "trit", "Chat", "Card"]
        assert seen[-2:] == ["Message", "Send"]
        page.keyboard.press("Control+/")
        assert page.get_by_role("dialog").is_visible()
        page.keyboard.press("Escape")
        assert not page.get_by_role("dialog").is_visible()


def test_an_answer_is_said_once_it_is_there(browser: Browser, address: str) -> None:
    """Not token by token: a screen reader gets paragraphs, and that the answer has ended."""
    with visit(browser, address) as made:
        page = made.open()
        page.get_by_role("button", name="Settings").click()
        page.locator("#set-max_tokens").fill("9")
        page.get_by_label("Message", exact=True).fill("one")
        page.keyboard.press("Enter")
        page.locator("article.assistant .took").wait_for()
        until(
            page, "document.getElementById('status').textContent.startsWith('The answer has ended')"
        )
        assert page.locator("[role=log] p").count() == 1
        assert page.locator("article").locator("[aria-live]").count() == 0


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_colours_are_the_systems_until_one_chooses(
    browser: Browser, address: str, scheme: str
) -> None:
    with visit(browser, address, scheme=scheme) as made:
        page = made.open()
        paper = "getComputedStyle(document.documentElement).backgroundColor"
        light, dark = "rgb(253, 252, 250)", "rgb(22, 21, 20)"
        assert page.evaluate(paper) == (light if scheme == "light" else dark)
        for wanted in (light, dark):
            page.get_by_role("button", name="Colours").click()
            assert page.evaluate(paper) == wanted
        page.reload()
        assert page.evaluate(paper) == dark


def test_it_holds_still_for_who_wants_it(browser: Browser, address: str) -> None:
    with visit(browser, address, reduced_motion="reduce") as made:
        page = made.open()
        page.evaluate("""document.body.append(
            trit.el("div", { "aria-busy": "true" }, trit.el("p", { class: "notes" })))""")
        name = "getComputedStyle(document.querySelector('.notes'), '::before').animationName"
        assert page.evaluate(name) == "none"
