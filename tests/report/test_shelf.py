"""The page of the zoo: every model, and the figures of those that are here."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from trit import zoo
from trit.cli import main

pytest.importorskip("matplotlib", reason="needs matplotlib: pip install 'trit[plot]'")


def test_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    target = tmp_path / "zoo.html"
    assert main(["list", "--page", str(target)]) == 0
    assert f"written: {target}" in capsys.readouterr().err
    text = target.read_text(encoding="utf-8")
    page = ElementTree.fromstring(
        re.sub(r"<(meta [^>]*)>", r"<\1/>", text.removeprefix("<!doctype html>\n"))
    )
    words = " ".join(page.itertext())
    entries = zoo.shelf()
    assert [each.text for each in page.iter("h2")] == [entry.name for entry in entries]
    for entry in entries:
        assert (f"trit pull {entry.name}" in words) == (entry.path is None)
    assert "TQ2_0" in words and f"{len(entries)} models, 1 of them" in words
    assert len(page.findall(".//{http://www.w3.org/2000/svg}svg")) == 1
    for word in ("src=", 'href="http', "<script", "url(http"):
        assert word not in text, word
    assert main(["list", "--page", str(tmp_path / "zoo.txt")]) == 2
    assert main(["list", "--page", str(tmp_path / "absent" / "zoo.html")]) == 2
