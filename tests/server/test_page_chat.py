"""The chat in a browser: what a person does with it, and finds again."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from server import live
from server.browser import Visit, chromium, until, visit
from trit.runtime.model import Model
from trit.server.settings import Settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page, Route

CONTEXT = 512


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return live.write(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def address(models: Path) -> Iterator[str]:
    plainly = live.opener(models, ctx=CONTEXT)
    all_ = {"talker": plainly, "second": plainly, "slow": slowly(models)}
    with live.served(all_, paths={"talker": models}) as (address, _):
        yield address


def slowly(models: Path) -> Callable[[], Model]:
    """A model that takes its time, so that there is something to stop."""

    def opened() -> Model:
        model = live.opener(models, ctx=CONTEXT)()
        forward: Any = model.engine.forward

        def later(*arguments: Any, **named: Any) -> Any:
            time.sleep(0.02)
            return forward(*arguments, **named)

        model.engine.forward = later  # type: ignore[method-assign]
        return model

    return opened


@pytest.fixture
def person(browser: Browser, address: str) -> Iterator[Visit]:
    """With a seed and short answers."""
    with visit(browser, address, accept_downloads=True) as made:
        set_up(made.open(), seed=7, max_tokens=12)
        yield made


def set_up(page: Page, **settings: float) -> None:
    page.get_by_role("button", name="Settings").click()
    for name, value in settings.items():
        page.locator(f"#set-{name}").fill(str(value))


def ask(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")


def answer(page: Page, number: int = 1) -> Locator:
    """The answer so counted from the top, once it has ended."""
    found = page.locator("article.assistant").nth(number - 1)
    found.locator(".actions").wait_for()
    return found


def said(page: Page) -> list[str]:
    return page.locator("article > .body").all_inner_texts()


def hold_up(page: Page, **changes: Any) -> list[dict[str, Any]]:
    """Send every request with these fields changed; what the page asked for itself."""
    asked: list[dict[str, Any]] = []

    def changed(route: Route) -> None:
        asked.append(route.request.post_data_json)
        route.continue_(post_data=json.dumps({**asked[-1], **changes}))

    page.route("**/v1/chat/completions", changed)
    return asked


def test_a_question_is_answered(person: Visit) -> None:
    page, asked = person.page, hold_up(person.page)
    ask(page, "the question")
    text = answer(page).locator("> .body").text_content()
    assert asked == [
        {"model": "talker", "messages": [{"role": "user", "content": "the question"}],
         "stream": True, "stream_options": {"include_usage": True}, "seed": 7, "max_tokens": 12}
    ]  # fmt: skip
    whole = live.ask(
        person.address,
        "/v1/chat/completions",
        {"model": "talker", "messages": asked[0]["messages"], "seed": 7, "max_tokens": 12},
    ).json
    assert text is not None
    assert normal(text) == normal(whole["choices"][0]["message"]["content"])
    took = answer(page).locator(".took").inner_text()
    tokens = whole["usage"]["completion_tokens"]
    assert re.match(rf"{tokens} tokens? · [\d.,]+ tokens/s · first after [\d.]+ s$", took), took
    gauge = f"{whole['usage']['total_tokens']} of {CONTEXT} tokens of context"
    assert page.locator(".gauge").inner_text() == gauge


def normal(text: str) -> str:
    """Without what Markdown takes away."""
    return re.sub(r"[\s\\`*_#>|~-]+", "", text)


def test_the_next_question_brings_what_was_said(person: Visit) -> None:
    page, asked = person.page, hold_up(person.page)
    page.locator("#system").fill("Be brief.")
    ask(page, "one")
    answer(page)
    ask(page, "two")
    answer(page, 2)
    roles = [message["role"] for message in asked[1]["messages"]]
    assert roles == ["system", "user", "assistant", "user"]
    assert asked[1]["messages"][0]["content"] == "Be brief."


@pytest.mark.parametrize("how", ["Escape", "Stop"])
def test_stopping(person: Visit, how: str) -> None:
    page = person.page
    hold_up(page, model="slow", max_tokens=480, logit_bias=live.ENDLESS)
    ask(page, "talk")
    until(page, "document.querySelector('.assistant > .body').textContent.length > 3")
    if how == "Stop":
        page.get_by_role("button", name="Stop").click()
    else:
        page.keyboard.press("Escape")
    stopped = answer(page)
    assert stopped.locator(".notes").inner_text() == "Stopped."
    assert re.match(r"about \d+ tokens", stopped.locator(".took").inner_text())
    assert page.get_by_role("button", name="Send").is_visible()
    live.until(lambda: "trit_requests_running 0" in live.ask(person.address, "/metrics").body)


def test_regenerating_makes_a_branch(person: Visit) -> None:
    page, asked = person.page, hold_up(person.page)
    ask(page, "one")
    first = answer(page).locator("> .body").inner_text()
    page.get_by_role("button", name="Regenerate").click()
    page.get_by_text("2/2").wait_for()
    second = answer(page).locator("> .body").inner_text()
    assert [body["seed"] for body in asked] == [7, 8] and first != second
    assert page.evaluate("document.activeElement.ariaLabel") == "Message"
    page.get_by_role("button", name="Previous branch").click()
    assert page.get_by_text("1/2").is_visible()
    assert answer(page).locator("> .body").inner_text() == first
    assert page.get_by_role("button", name="Previous branch").is_disabled()


def test_editing_makes_a_branch(person: Visit) -> None:
    page, asked = person.page, hold_up(person.page)
    ask(page, "one")
    answer(page)
    page.get_by_label("Message", exact=True).press("ArrowUp")
    page.get_by_label("Edit your message").fill("another")
    page.keyboard.press("Escape")  # nothing happens
    page.get_by_role("button", name="Edit").click()
    page.get_by_label("Edit your message").fill("changed")
    page.keyboard.press("Enter")
    page.get_by_text("2/2").wait_for()
    answer(page)
    assert asked[1]["messages"] == [{"role": "user", "content": "changed"}]
    assert page.locator("article.user > .body").inner_text() == "changed"
    page.get_by_role("button", name="Previous branch").click()
    assert page.locator("article.user > .body").inner_text() == "one"


def test_a_change_half_written_is_not_lost(person: Visit) -> None:
    page = person.page
    ask(page, "one")
    answer(page)
    page.get_by_role("button", name="Edit").click()
    page.get_by_label("Edit your message").fill("changed, but")
    ask(page, "two")
    answer(page, 2)
    assert page.get_by_label("Edit your message").input_value() == "changed, but"


def test_a_reload_keeps_all_but_the_key(person: Visit) -> None:
    page = person.page
    ask(page, "one")
    answer(page)
    page.get_by_role("button", name="Regenerate").click()
    page.get_by_text("2/2").wait_for()
    answer(page)
    page.get_by_label("Message", exact=True).fill("half a thought")
    before = said(page)
    page.reload()
    answer(page)
    assert said(page) == before and page.get_by_text("2/2").is_visible()
    assert page.get_by_label("Message", exact=True).input_value() == "half a thought"
    assert page.locator("#set-seed").input_value() == "7"


def test_several_conversations(person: Visit) -> None:
    page = person.page
    for text in ("first talk", "second talk"):
        page.keyboard.press("Alt+n")
        ask(page, text)
        answer(page)
    page.get_by_role("button", name="first talk", exact=True).click()
    assert page.locator("article.user > .body").inner_text() == "first talk"
    page.get_by_role("button", name="Delete first talk").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    assert page.locator("article").count() == 0
    assert page.locator(".talks li").count() == 1
    page.reload()
    assert page.locator(".talks li").all_inner_texts() == ["second talk\n×"]


def test_a_full_store_is_said(person: Visit) -> None:
    page = person.page
    page.evaluate("localStorage.setItem('trit.talk.large', 'x'.repeat(trit.store.most - 100))")
    ask(page, "one")
    answer(page)
    assert page.get_by_text("This browser's store is full").is_visible()


def test_export_and_import(person: Visit, tmp_path: Path) -> None:
    page = person.page
    ask(page, "one & <two>")
    answer(page)
    page.get_by_role("button", name="Regenerate").click()
    page.get_by_text("2/2").wait_for()
    answer(page)
    before, files = said(page), {}
    for name in ("Markdown", "JSON"):
        with page.expect_download() as caught:
            page.get_by_role("button", name=f"Export as {name}").click()
        files[name] = tmp_path / caught.value.suggested_filename
        caught.value.save_as(files[name])
    assert files["Markdown"].read_text("utf-8").startswith("# one & <two>\n\n## You\n\none & <two>")
    assert files["JSON"].name == "one-two-.json"
    page.locator("input[type=file]").set_input_files(files["JSON"])
    until(page, "document.querySelectorAll('.talks li').length === 2")
    assert said(page) == before and page.get_by_text("2/2").is_visible()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "It is not JSON."),
        ("[]", "It is not a conversation of this page."),
        ('{"format": "trit conversation 1"}', "It has no messages."),
        ('{"format": "trit conversation 1", "nodes": [{"role": "system"}]}', "its role is neither"),
        ('{"format": "trit conversation 1", "nodes": [{"role": "user", "content": "x", '
         '"parent": 0}]}', "its parent is not an earlier message"),
    ],
)  # fmt: skip
def test_what_cannot_be_imported(person: Visit, text: str, problem: str) -> None:
    page = person.page
    file = {"name": "talk.json", "mimeType": "application/json", "buffer": text.encode()}
    page.locator("input[type=file]").set_input_files(file)  # type: ignore[arg-type]
    page.locator("#trouble").get_by_text(problem).wait_for()
    assert page.locator(".talks li").count() == 0


def test_a_prompt_that_is_too_long(person: Visit) -> None:
    page = person.page
    ask(page, "x" * 2000)
    page.get_by_text("and the context has room for 512").wait_for()
    assert page.locator("article.user > .body").inner_text() == "x" * 2000  # nothing is lost
    page.get_by_role("button", name="Edit").click()
    page.get_by_label("Edit your message").fill("short")
    page.keyboard.press("Enter")
    answer(page)
    assert page.locator("article .failure").count() == 0


def test_a_server_that_has_gone_and_comes_back(person: Visit) -> None:
    page = person.page
    page.route("**/v1/chat/completions", lambda route: route.abort())
    ask(page, "one")
    page.get_by_text("The server does not answer.").wait_for()
    page.unroute("**/v1/chat/completions")
    page.get_by_role("button", name="Try again").click()
    answer(page).locator(".took").wait_for()
    assert page.locator("article").count() == 2 and page.get_by_text("1/2").count() == 0


def test_a_full_queue(browser: Browser, models: Path) -> None:
    narrow = Settings(parallel=1, queue=0)
    with (
        live.served({"talker": live.opener(models, parallel=1)}, narrow) as (address, app),
        visit(browser, address) as made,
    ):
        page = made.open()
        queue = app.state.service.queue
        with queue.place():
            ask(page, "one")
            page.get_by_text("the queue is full. Try again in a moment.").wait_for()
        page.get_by_role("button", name="Try again").click()
        answer(page)


def test_a_key_is_asked_for_and_forgotten_with_the_tab(browser: Browser, models: Path) -> None:
    locked = Settings(api_keys=("right",))
    with (
        live.served({"talker": live.opener(models)}, locked, wait=False) as (address, app),
        visit(browser, address) as made,
    ):
        live.until(lambda: app.state.service.shelf.started)
        page = made.open()
        page.get_by_role("heading", name="This server wants a key").wait_for()
        for key in ("wrong", "right"):
            page.get_by_label("API key").fill(key)
            page.get_by_role("button", name="Use the key").click()
            if key == "wrong":
                page.get_by_role("heading", name="That key is not valid here").wait_for()
        ask(page, "one")
        answer(page)
        assert page.evaluate("Object.values({...localStorage}).join().includes('right')") is False
        page.reload()  # the tab is the same
        page.get_by_text("tokens of context").wait_for()
        other = page.context.new_page()
        other.goto(f"http://{address}/")
        other.get_by_role("heading", name="This server wants a key").wait_for()


def test_the_model_is_chosen(person: Visit) -> None:
    page, asked = person.page, hold_up(person.page)
    chooser = page.get_by_label("Model", exact=True).first
    chooser.locator("option").nth(1).wait_for(state="attached")
    assert chooser.locator("option").all_inner_texts()[:2] == ["talker", "second (unloaded)"]
    chooser.select_option("second")
    ask(page, "one")
    assert answer(page).get_by_role("heading").inner_text() == "second"
    assert asked[0]["model"] == "second"
    until(page, "document.querySelector('.chooser').innerText.includes('second (') === false")


def test_settings_out_of_range_are_not_used(person: Visit) -> None:
    page, asked = person.page, hold_up(person.page)
    page.locator("#set-temperature").fill("3")
    assert page.get_by_text("Not used: expected a number from 0 to 2.").is_visible()
    page.locator("#set-top_p").fill("0.5")
    assert page.locator("#set-top_k").get_attribute("placeholder") == "40"  # the model's own
    ask(page, "one")
    answer(page)
    assert "temperature" not in asked[0] and asked[0]["top_p"] == 0.5
    page.get_by_role("button", name="Back to the model's own").click()
    assert page.locator("#set-top_p").input_value() == ""


def test_thoughts_are_folded(person: Visit) -> None:
    page = person.page
    deltas = [{"role": "assistant"}, {"reasoning_content": "Let me see."}, {"content": "Here."}]
    events = [
        {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas
    ]
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    page.route("**/v1/chat/completions", lambda route: route.fulfill(
        body=body, content_type="text/event-stream"))  # fmt: skip
    ask(page, "one")
    assert answer(page).locator("> .body").inner_text() == "Here."
    assert not page.get_by_text("Let me see.").is_visible()
    page.get_by_text("What it thought").click()
    assert page.get_by_text("Let me see.").is_visible()


def test_an_answer_that_breaks_off(person: Visit) -> None:
    page = person.page
    event = {"choices": [{"index": 0, "delta": {"content": "Half"}, "finish_reason": None}]}
    page.route("**/v1/chat/completions", lambda route: route.fulfill(
        body=f"data: {json.dumps(event)}\n\n", content_type="text/event-stream"))  # fmt: skip
    ask(page, "one")
    page.get_by_text("The connection was lost in the middle of the answer.").wait_for()
    assert answer(page).locator("> .body").inner_text() == "Half"
