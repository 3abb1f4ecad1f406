"""What a model may write, drawn: Markdown where it is some, and never anything that acts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from server import live
from server.browser import Visit, chromium, visit

if TYPE_CHECKING:
    from playwright.sync_api import Browser

DRAW = """text => {
    const at = document.createElement("div");
    trit.markdown(text, at);
    return at.innerHTML;
}"""
SHOW = """text => {
    const at = trit.el("div", { id: "drawn" });
    document.body.append(at);
    trit.markdown(text, at);
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def person(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    path = live.write(tmp_path_factory.mktemp("models"))
    with (
        live.served({"talker": live.opener(path)}) as (address, _),
        visit(browser, address) as made,
    ):
        made.open()
        yield made


LINK = (
    '<a href="https://x.test/1" title="https://x.test/1" target="_blank" rel="noopener noreferrer">'
)


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("one\ntwo\n\nthree", "<p>one\ntwo</p><p>three</p>"),
        ("# A #", "<h3>A</h3>"),
        ("#none", "<p>#none</p>"),
        ("**a** *b* __c__ _d_ ***e*** ~~f~~",
         "<p><strong>a</strong> <em>b</em> <strong>c</strong> <em>d</em> "
         "<strong><em>e</em></strong> <s>f</s></p>"),
        ("2 * 3 * 4 and snake_case_name", "<p>2 * 3 * 4 and snake_case_name</p>"),
        ("**a *b* c**", "<p><strong>a <em>b</em> c</strong></p>"),
        (r"\*a\* `*b*` `` ` ``", "<p>*a* <code>*b*</code> <code>`</code></p>"),
        ("- a\n- b\n  - c\n\n- d", "<ul><li>a</li><li>b<ul><li>c</li></ul></li><li>d</li></ul>"),
        ("3. a\n4. b", '<ol start="3"><li>a</li><li>b</li></ol>'),
        ("- a\n1. b", '<ul><li>a</li></ul><ol start="1"><li>b</li></ol>'),
        ("> a\n> > b", "<blockquote><p>a</p><blockquote><p>b</p></blockquote></blockquote>"),
        ("---\n***", "<hr><hr>"),
        ("[a](https://x.test/1)", f"<p>{LINK}a</a></p>"),
        ("see https://x.test/1.", f"<p>see {LINK}https://x.test/1</a>.</p>"),
    ],
)  # fmt: skip
def test_markdown(person: Visit, text: str, html: str) -> None:
    assert person.page.evaluate(DRAW, text) == html


def test_code_is_kept_as_it_is(person: Visit) -> None:
    text = "```python\nif x:  # <b>\n    return 'a' + \"b\"\n\n\ty\n```\nafter"
    person.page.evaluate(SHOW, text)
    assert person.page.locator("#drawn pre").text_content() == text[10:-10]
    assert person.page.locator("#drawn .is-comment").text_content() == "# <b>"
    assert person.page.locator("#drawn .is-word").all_text_contents() == ["if", "return"]
    assert person.page.locator("#drawn figcaption span").text_content() == "python"
    person.page.evaluate("drawn.remove()")


def test_a_table(person: Visit) -> None:
    html = person.page.evaluate(DRAW, "| a | b |\n|---|--:|\n| `1` | 2 \\| 3 | 4 |")
    assert '<th scope="col">a</th><th class="right" scope="col">b</th>' in html
    assert '<td><code>1</code></td><td class="right">2 | 3</td></tr>' in html  # as many as the head


@pytest.mark.parametrize(
    "text",
    [
        "<script>window.hit = 1</script>",
        "<img src=x onerror='window.hit = 1'>",
        "<style>body { display: none }</style><iframe src='https://evil.test'></iframe>",
        "[a](javascript:window.hit=1)",
        "[a](  JaVaScRiPt:window.hit=1)",
        "[a](data:text/html,<script>window.hit=1</script>)",
        "[a](vbscript:x) <a href='javascript:hit=1'>b</a> <javascript:hit=1>",
        '[a](https://x.test/"onmouseover="window.hit=1)',
        "![x](https://evil.test/pixel.png) ![y](//evil.test/pixel.png)",
        '```html"onload=hit=1\n<script>window.hit = 1</script>\n```',
        "| <img src=x onerror=hit=1> | b |\n|---|---|\n| <svg onload=hit=1> | 2 |",
        "- <details open ontoggle=hit=1>\n- &lt;script&gt;",
        "# <base href='https://evil.test'>\n<form action='https://evil.test'><button>b</button>",
    ],
)
def test_hostile_text_is_text(person: Visit, text: str) -> None:
    page = person.page
    page.evaluate(SHOW, text)
    drawn = page.locator("#drawn")
    assert drawn.locator("script, img, style, iframe, svg, form, base, object").count() == 0
    for link in drawn.locator("a").all():
        assert (link.get_attribute("href") or "").startswith("https://")
        assert link.evaluate("a => a.getAttributeNames().sort().join()") == "href,rel,target,title"
    assert drawn.locator("*").evaluate_all(
        "all => all.every(each => each.getAttributeNames().every(name => !name.startsWith('on')))"
    )
    page.wait_for_timeout(50)
    assert page.evaluate("window.hit === undefined")
    page.evaluate("drawn.remove()")


def test_the_policy_stops_what_would_get_through(person: Visit) -> None:
    """Were a text ever made HTML, nothing of it would run."""
    tried = """() => {
        try { document.body.innerHTML = "<b>x</b>"; } catch (error) { return error.name; }
    }"""
    assert person.page.evaluate(tried) == "TypeError"
    script = """() => {
        const script = document.createElement("script");
        try { script.text = "window.hit = 1"; document.body.append(script); } catch {}
        return window.hit ?? null;
    }"""
    assert person.page.evaluate(script) is None
    assert person.errors  # the browser has said so
    person.errors.clear()


HOSTILE = {
    "stars": "*a " * 30_000 + "\n" + "**" * 30_000,
    "brackets": "[" * 50_000 + "](" * 1000,
    "ticks": " ".join("`" * (n % 50 + 1) for n in range(5000)),
    "quotes": ">" * 20_000 + " deep",
    "lists": "\n".join(" " * n + "- x" for n in range(2000)),
    "table": "|" * 20_000 + "\n" + "|-" * 20_000,
    "spaces": "# a" + " " * 100_000 + "b\n-" + " " * 100_000 + "x",
    "comments": "```js\n" + "/*" * 20_000,
    "fences": "```\n\n~~~\n" * 10_000,
    "lines": "\n".join("- [a](http://x.test/) **b**" for _ in range(2000)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_text_made_to_be_slow(person: Visit, name: str) -> None:
    """Drawn in seconds of the processor, however it is nested: nothing grows without a bound."""
    session = person.page.context.new_cdp_session(person.page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def seconds() -> float:
        found = session.send("Performance.getMetrics")["metrics"]
        return float(next(one["value"] for one in found if one["name"] == "TaskDuration"))

    begun = seconds()
    person.page.evaluate(f"text => ({DRAW})(text).length", HOSTILE[name])
    assert seconds() - begun < 5


def test_growing_text_is_what_whole_text_is(person: Visit) -> None:
    """An answer drawn piece by piece ends as it would be drawn at once, and keeps what is done."""
    text = (
        "# A\n\nSome *text* of\ntwo lines\n\n- a\n- b\n\n```js\nlet x = 1;\n```\n\n"
        "| a | b |\n|---|---|\n| 1 | 2 |\n\nend"
    )
    grown, kept = person.page.evaluate("""text => {
        const at = document.createElement('div');
        let first = null;
        for (let n = 1; n <= text.length; n++) {
            trit.markdown(text.slice(0, n), at);
            if (n === 10) first = at.firstChild;
        }
        return [at.innerHTML, at.firstChild === first];
    }""", text)  # fmt: skip
    assert grown == person.page.evaluate(DRAW, text) and kept
