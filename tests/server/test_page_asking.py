"""A prompt of the voter's own in a browser: asked, waited for, cancelled, voted on; axe."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from compare import studies
from server import live
from server.browser import SCHEMES, chromium, visit
from trit.compare import Asking, Store, Voting
from trit.compare.study import Answer
from trit.errors import TritError
from trit.server.app import create_study_app
from trit.server.settings import Settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


class Made(Asking):
    """Answers without models, when it is let; `fault` is raised instead if there is one."""

    def __init__(self, store: Store, most: int = 3) -> None:
        super().__init__(store, most)
        self.go, self.cancels, self.fault = threading.Event(), 0, ""

    def _answers(self, number: int, text: str, cancelled: threading.Event) -> list[Answer]:
        if self.fault:
            raise TritError(self.fault)
        while not self.go.wait(0.01):
            if cancelled.is_set():
                self.cancels += 1
                break
        return studies.answers(self.store, number)

    def _hold(self, answers: object) -> float:
        return 0.0


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[Made]:
    with studies.written(tmp_path / "study.sqlite", prompts=2) as store:
        yield Made(store)


@pytest.fixture
def address(asking: Made) -> Iterator[str]:
    app = create_study_app(Voting(asking.store), Settings(), asking)
    with live.listening(app) as address:
        yield address
        asking.go.set()


def ready(page: Page, question: str = "Which answer is better?") -> None:
    page.locator("#blind-question", has_text=question).wait_for()


def ask(page: Page, prompt: str) -> None:
    page.get_by_label("A prompt of your own").fill(prompt)
    page.get_by_role("button", name="Get answers").click()


def test_asked_waited_for_and_voted_on(browser: Browser, address: str, asking: Made) -> None:
    """Letters in the field are no votes; while the models answer, one goes on; then it comes next,
    and nothing that the page was sent names a model."""
    with visit(browser, address, reduced_motion="reduce") as made:
        bodies: list[str] = []
        made.page.on("response", lambda r: bodies.append(str(r.headers) + r.text()))
        page = made.open("blind")
        ready(page)
        page.get_by_text("3 left").wait_for()
        page.get_by_label("A prompt of your own").press_sequentially("1 2 t n s u")
        assert asking.store.ballots("blind") == [] and asking.store.undone() == []
        ask(page, "Why is the sky blue?")
        page.get_by_text("The models are answering").wait_for()
        assert page.get_by_role("button", name="Get answers").count() == 0
        page.get_by_role("button", name="Tie").click()
        page.get_by_role("button", name="No idea").click()
        page.get_by_text("Comparison 2 of 2").wait_for()
        asking.go.set()
        page.get_by_text("there; they come next").wait_for()
        assert page.locator(".prompt").inner_text() != "Why is the sky blue?", "what is read stays"
        page.get_by_role("button", name="Show them now").click()
        page.locator(".prompt", has_text="Why is the sky blue?").wait_for()
        page.get_by_text("Comparison 2 of 3").wait_for()
        page.get_by_text("2 left").wait_for()
        ready(page)
        page.keyboard.press("1")
        ready(page, "heavier file?")
        text = page.content() + "".join(bodies)
        assert not re.search("heavy-f16|middle-q4|/models/", text)
    ballot = asking.store.ballots("blind")[-1]
    assert ballot.prompt == 3 and ballot.choice in ("heavier", "lighter")
    assert asking.store.own_prompts() == {3: {ballot.voter}}


def test_cancelled(browser: Browser, address: str, asking: Made) -> None:
    """The prompt stays in the field, nothing of it is kept; so it is for who leaves the page."""
    with visit(browser, address) as made:
        page = made.open("blind")
        ask(page, "Why?")
        page.get_by_text("The models are answering").wait_for()
        page.get_by_role("button", name="Cancel").click()
        page.get_by_text("Cancelled. Nothing of it is kept.").wait_for()
        assert page.get_by_label("A prompt of your own").input_value() == "Why?"
        live.until(lambda: asking.cancels == 1)
        page.get_by_role("button", name="Get answers").click()
        page.get_by_text("The models are answering").wait_for()
        page.reload()
        live.until(lambda: asking.cancels == 2)
        page.get_by_text("3 left").wait_for()
    assert len(asking.store.prompts()) == 2


def test_what_fails_is_said_plainly(browser: Browser, address: str, asking: Made) -> None:
    with visit(browser, address) as made:
        page = made.open("blind")
        page.get_by_text("3 left").wait_for()
        ask(page, "   ")
        page.get_by_text("Write a prompt first.").wait_for()
        ask(page, "question 1")
        page.get_by_text("the study has this prompt already").wait_for()
        asking.fault = "/models/heavy-f16.gguf: it is another file"
        ask(page, "Why?")
        page.get_by_text("The models of this study could not answer").wait_for()
        assert "heavy" not in page.content()
        assert page.get_by_label("A prompt of your own").input_value() == "Why?"


def test_when_all_is_voted_on(browser: Browser, address: str, asking: Made) -> None:
    """The answers are shown at once, until there are none left to ask."""
    asking.go.set()
    with visit(browser, address, reduced_motion="reduce") as made:
        made.page.add_init_script("localStorage.setItem('trit.voter', 'voter-one')")
        voting = Voting(asking.store)
        while (shown := voting.next("voter-one")) is not None:
            voting.vote(shown.token, "tie")
        page = made.open("blind")
        page.get_by_text("All 2 comparisons are voted on").wait_for()
        for number in (1, 2, 3):
            ask(page, f"Why {number}?")
            page.locator(".prompt", has_text=f"Why {number}?").wait_for()
            ready(page)
            page.get_by_role("button", name="Tie").click()
            page.get_by_role("button", name="No idea").click()
            page.get_by_text(f"All {2 + number} comparisons").wait_for()
        page.get_by_text("All prompts that a voter may ask are asked").wait_for()
        assert page.get_by_role("button", name="Get answers").count() == 0
        page.get_by_text("votes on their answers: 3. They are in none of these").wait_for()


def test_no_field_where_none_are_answered(browser: Browser, asking: Made) -> None:
    app = create_study_app(Voting(asking.store), Settings())
    with live.listening(app) as address, visit(browser, address) as made:
        page = made.open("blind")
        ready(page)
        assert page.get_by_label("A prompt of your own").is_hidden()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("size", ["narrow", "phone", "desktop"])
def test_nothing_that_axe_calls_serious(
    browser: Browser, address: str, asking: Made, size: str, scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe").Axe()
    with visit(browser, address, size, scheme, reduced_motion="reduce") as made:
        page = made.open("blind")
        ready(page)
        ask(page, "Why is the sky blue? " * 20)
        for state in ("The models are answering", "they come next"):
            page.get_by_text(state).wait_for()
            found = axe.run(page)
            bad = [v for v in found.response["violations"] if v["impact"] != "minor"]
            assert not bad, found.generate_report()
            wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, f"{wide} pixels too wide"
            asking.go.set()
