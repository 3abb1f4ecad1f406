"""The web page at /, made once of its sources in page/: one file, and a policy that holds it to it.

index.html names style.css and the scripts; each is put where it is named. The policy
(Content-Security-Policy, w3.org/TR/CSP3) names their hashes: no other script runs, no other style
applies, nothing is asked for elsewhere, and no text can be turned into HTML (trusted types).
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute

from trit.server._documents import refusals

FOLDER = Path(__file__).with_name("page")
_STYLE = re.compile(r'<link rel="stylesheet" href="(\w+\.css)">')
_SCRIPT = re.compile(r'<script type="module" src="(\w+\.js)"></script>')
_PATHS = '<meta name="paths" content="">'


@dataclass(frozen=True)
class Page:
    """What is served: the HTML, and the hashes of its style and scripts, as a policy names them."""

    text: str
    styles: tuple[str, ...]
    scripts: tuple[str, ...]

    @property
    def headers(self) -> dict[str, str]:
        """Of the answer. Data URLs are for the icon."""
        policy = {
            "default-src": "'none'",
            "script-src": " ".join(self.scripts),
            "style-src": " ".join(self.styles),
            "connect-src": "'self'",
            "img-src": "data:",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
            "require-trusted-types-for": "'script'",
            "trusted-types": "'none'",
        }
        return {
            "Content-Security-Policy": "; ".join(
                f"{name} {value}" for name, value in policy.items()
            ),
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Cache-Control": "no-cache",
        }


def assemble(paths: Iterable[str], folder: Path = FOLDER) -> Page:
    """The page of an API that has these paths, by which it knows which of its views have a use."""
    source = (folder / "index.html").read_text("utf-8")
    hashes: dict[str, list[str]] = {"style": [], "script": []}

    def inlined(tag: str, opening: str, name: str) -> str:
        text = (folder / name).read_text("utf-8")
        assert f"</{tag}" not in text.lower() and "<!--" not in text, f"{name} would end its tag"
        hashes[tag].append(_hash(text))
        return f"<{opening}>{text}</{tag}>"

    source = _STYLE.sub(lambda found: inlined("style", "style", found[1]), source)
    source = _SCRIPT.sub(lambda found: inlined("script", 'script type="module"', found[1]), source)
    known = html.escape(" ".join(sorted(set(paths))))
    assert _PATHS in source
    source = source.replace(_PATHS, _PATHS.replace('""', f'"{known}"'))
    return Page(source, tuple(hashes["style"]), tuple(hashes["script"]))


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def router(api: Iterable[APIRouter]) -> APIRouter:
    """The endpoint, for an API that these answer."""
    made = APIRouter()
    routes = [route for part in api for route in part.routes]
    page = assemble(route.path for route in routes if isinstance(route, APIRoute))

    @made.get("/", response_class=HTMLResponse, responses={403: refusals()[403]})
    async def web_page() -> HTMLResponse:
        """The web page: chat, the models' cards, the blind test."""
        return HTMLResponse(page.text, headers=page.headers)

    return made
