"""The page as it is served: one file, held to itself by its policy."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from server import live
from trit.server import _page
from trit.server.settings import Settings

SOURCES = sorted(_page.FOLDER.iterdir())
INLINE = re.compile(r"<(style|script)[^>]*>(.*?)</\1>", re.DOTALL)


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that wants a key."""
    path = live.write(tmp_path_factory.mktemp("models"))
    with live.served({"talker": live.opener(path)}, Settings(api_keys=("secret",))) as (address, _):
        yield address


def test_every_source_is_in_the_page() -> None:
    page = _page.assemble(["/health"]).text
    for source in SOURCES:
        if source.suffix in (".css", ".js"):
            assert source.read_text("utf-8") in page, source.name
    assert not _page._SCRIPT.search(page) and not _page._STYLE.search(page)
    assert '<meta name="paths" content="/health">' in page


def test_it_names_nothing_elsewhere() -> None:
    """No address of another machine stands in it, but for the name of SVG's elements."""
    found = re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s'\"]*", _page.assemble([]).text)
    assert set(found) <= {"http://www.w3.org/2000/svg"}


def test_the_policy_names_all_that_runs_and_no_more() -> None:
    page = _page.assemble([])
    hashes: dict[str, set[str]] = {"style": set(), "script": set()}
    for tag, text in INLINE.findall(page.text):
        digest = hashlib.sha256(text.encode()).digest()
        hashes[tag].add(f"'sha256-{base64.b64encode(digest).decode()}'")
    rules = dict(rule.split(" ", 1) for rule in page.headers["Content-Security-Policy"].split("; "))
    assert set(rules["script-src"].split()) == hashes["script"]
    assert set(rules["style-src"].split()) == hashes["style"]
    assert rules["default-src"] == "'none'" and rules["connect-src"] == "'self'"
    assert "unsafe" not in str(rules)
    assert not re.search(r"\son\w+=|\sstyle=|javascript:", page.text.split("<script")[0])


def test_served_without_the_key_that_everything_else_wants(locked: str) -> None:
    answer = live.ask(locked, "/")
    assert answer.status == 200 and answer.headers["content-type"].startswith("text/html")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert "secret" not in answer.body
    assert live.ask(locked, "/v1/models").status == 401
    assert live.ask(locked, "/", method="POST").status == 405


@pytest.mark.parametrize("text", ["a </SCRIPT> b", "a <!-- b"])
def test_a_source_cannot_end_its_tag(tmp_path: Path, text: str) -> None:
    head = '<meta name="paths" content=""><script type="module" src="a.js"></script>'
    (tmp_path / "index.html").write_text(head)
    (tmp_path / "a.js").write_text(text)
    with pytest.raises(AssertionError, match=r"a\.js would end its tag"):
        _page.assemble([], tmp_path)
