"""The blind test in a browser: votes by keys and buttons, one pace, undo, results, axe."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from compare import studies
from server import live
from server.browser import SCHEMES, chromium, visit
from trit.compare import Store, Voting
from trit.compare.study import Answer, Settings
from trit.server import settings as server
from trit.server.app import create_study_app

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with studies.written(tmp_path / "study.sqlite", prompts=3) as store:
        yield store


@pytest.fixture
def address(store: Store) -> Iterator[str]:
    with live.listening(create_study_app(Voting(store), server.Settings())) as address:
        yield address


def ready(page: Page, question: str = "Which answer is better?") -> None:
    page.locator("#blind-question", has_text=question).wait_for()


def test_votes_undo_and_results(browser: Browser, address: str, store: Store) -> None:
    """Three comparisons, by keys and by buttons, one of them voted on twice."""
    with visit(browser, address) as made:
        page = made.open("blind")
        assert page.get_by_role("link", name="Chat", exact=True).count() == 0, (
            "there is no model to chat with"
        )
        ready(page)
        assert page.get_by_role("button", name="Undo the last vote").is_disabled()
        first = page.locator(".prompt").inner_text()
        page.keyboard.press("1")
        ready(page, "heavier file?")
        page.get_by_role("button", name="No idea").click()
        page.get_by_text("Comparison 2 of 3").wait_for()
        ready(page)
        assert page.locator(".prompt").inner_text() != first
        page.keyboard.press("u")
        page.get_by_text("Comparison 1 of 3").wait_for()
        assert page.locator(".prompt").inner_text() == first
        ready(page)
        page.get_by_role("button", name="Results").click()
        page.get_by_text("kept back until 3 comparisons").wait_for()
        for choice in ("Tie", "1 is better", "Neither is any good"):
            page.get_by_role("button", name=choice).click()
            page.get_by_role("button", name="Answer 2").click()
            if choice != "Neither is any good":
                ready(page)
        page.get_by_text("All 3 comparisons are voted on").wait_for()
        page.get_by_role("table", name="Pairs").wait_for()
        words = page.locator(".results").inner_text()
        assert "A over B: not settled" in words and "heavy-f16" in words
        assert page.locator("svg.intervals circle").count() == 1
    cast = store.ballots("blind")
    assert sorted(b.choice for b in cast if b.choice not in ("heavier", "lighter")) == [
        "bad", "tie",
    ]  # fmt: skip
    assert len(cast) == 3 and len(store.undone()) == 1
    assert {b.believed for b in cast} <= {"heavier", "lighter"}


def test_both_answers_appear_at_one_pace(browser: Browser, tmp_path: Path) -> None:
    """After any time as many letters stand in either, as long as there are some left."""
    with studies.written(tmp_path / "long.sqlite", prompts=0) as store:
        store.add_prompts(["Go on."])
        store.add_answers(
            [Answer((model, 0), 1, letter * length, 9, "stop", 1, 1, 0.1, 0.1, "scalar", 1)
             for model, letter, length in ((0, "a", 1200), (1, "b", 500))]
        )  # fmt: skip
        app = create_study_app(Voting(store), server.Settings())
        with live.listening(app) as address, visit(browser, address) as made:
            made.page.clock.install()
            page = made.open("blind")
            page.get_by_text("Comparison 1 of 1").wait_for()
            texts = page.locator(".blind .text")
            together = 0
            for _ in range(12):
                page.clock.run_for(500)
                first, second = map(len, texts.all_text_contents())
                assert first == second or max(first, second) > min(first, second) == 500
                together += first == second
                if first != second:
                    break
            assert together >= 2 and first != second
            assert page.get_by_role("button", name="Tie").count() == 0, "not before all is there"
            page.get_by_role("button", name="Show all").click()
            ready(page)
            assert sorted(map(len, texts.all_text_contents())) == [500, 1200]


def test_the_page_says_no_name(browser: Browser, address: str) -> None:
    """Nor does anything that it has asked the server for, before results are shown."""
    with visit(browser, address) as made:
        bodies: list[str] = []
        made.page.on("response", lambda r: bodies.append(str(r.headers) + r.text()))
        page = made.open("blind")
        for _ in range(2):
            ready(page)
            page.keyboard.press("t")
            ready(page, "heavier file?")
            page.keyboard.press("n")
        ready(page)
        text = page.content() + "".join(bodies)
        assert len(bodies) >= 6 and not re.search("heavy-f16|middle-q4|/models/", text)


def test_names_are_shown_where_they_are_to_be(browser: Browser, store: Store) -> None:
    blind = Voting(store)
    while (shown := blind.next("voter-one")) is not None:
        blind.vote(shown.token, "tie")
    app = create_study_app(Voting(store, "named"), server.Settings())
    with live.listening(app) as address, visit(browser, address) as made:
        made.page.add_init_script("localStorage.setItem('trit.voter', 'voter-one')")
        page = made.open("blind")
        ready(page)
        heads = page.locator(".blind article h2").all_text_contents()
        assert {head.partition(": ")[2] for head in heads} == {"heavy-f16", "middle-q4"}
        page.keyboard.press("2")
        page.get_by_text("Comparison 2 of 3").wait_for()
    assert next(b.choice for b in store.ballots("named")) in ("heavier", "lighter")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("size", ["phone", "desktop"])
def test_nothing_that_axe_calls_serious(
    browser: Browser, tmp_path: Path, size: str, scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe").Axe()
    settings = Settings(catch_every=0, ask_belief=False)
    with studies.written(tmp_path / "s.sqlite", models=3, prompts=1, settings=settings) as store:
        app = create_study_app(Voting(store), server.Settings())
        with live.listening(app) as address, visit(browser, address, size, scheme) as made:
            page = made.open("blind")
            for shown in range(4):
                if shown < 3:
                    page.get_by_text(f"Comparison {shown + 1} of 3").wait_for()
                    ready(page)
                else:
                    page.get_by_role("table", name="Pairs").wait_for()
                if shown in (0, 3):
                    found = axe.run(page)
                    bad = [v for v in found.response["violations"] if v["impact"] != "minor"]
                    assert not bad, found.generate_report()
                    wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
                    assert wide <= 0, f"{wide} pixels too wide"
                page.keyboard.press("1")
