"""Markdown as it streams: the same however it is cut, within the width, and nothing is lost."""

import random
import re

import pytest

from trit.cli.chat.markdown import BOLD, CODE, DIM, ITALIC, RESET, Markdown, cells

_ANSI = re.compile(r"\x1b\[[\d;]*m")


def shown(text: str, width: int = 40, size: int = 1) -> str:
    written: list[str] = []
    markdown = Markdown(written.append, width)
    for at in range(0, len(text), size):
        markdown.push(text[at : at + size])
    markdown.finish()
    return "".join(written).removesuffix(RESET)


def plain(text: str, width: int = 40) -> str:
    return _ANSI.sub("", shown(text, width))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a **b** c", f"a {BOLD}b{RESET} c"),
        ("*b*", f"{ITALIC}b{RESET}"),
        ("_b_ a_b_c", f"{ITALIC}b{RESET} a_b_c"),
        ("`a*b*`", f"{CODE}a*b*{RESET}"),
        ("2 * 3 * 4 ** 5", "2 * 3 * 4 ** 5"),
        ("**open", f"{BOLD}open{RESET}"),
        ("end **", "end **"),
        (r"\\*no\\*".replace("\\\\", "\\"), "*no*"),
        ("# Big", f"{BOLD}Big{RESET}"),
        ("#hashtag", "#hashtag"),
        ("- one\n- two", "• one\n• two"),
        ("  1. one", "  1. one"),
        ("-5", "-5"),
        ("2024", "2024"),
        ("> said", f"{DIM}│ {RESET}said"),
        ("---\na", f"{DIM}{'─' * 39}{RESET}\na"),
        ("| **a** |", "| **a** |"),
        ("", ""),
        ("\n\na", "\n\na"),
    ],
)
def test_marks(text: str, expected: str) -> None:
    assert shown(text) == expected


def test_code() -> None:
    """As it is, coloured by its language, a line at a time, also where it does not end."""
    code = "```python\ndef f(a):\n    return a * 2 ** a  # **no**\n\n```\nend"
    assert plain(code) == code
    assert plain("```\nhalf") == "```\nhalf"
    assert shown("```py\na\n```").endswith(f"{DIM}```{RESET}")
    assert plain("```nosuchlanguage\na  b\n```") == "```nosuchlanguage\na  b\n```"
    assert "\x1b[94mdef" in shown(code)
    long = "```\n" + "x" * 200 + "\n```"
    assert plain(long) == long


def test_lines_are_no_wider_than_the_terminal() -> None:
    words = ["the", "**bold**", "`code`", "你好世界", "naïve", "e\u0301", "long" * 5]
    for seed in range(20):
        text = " ".join(random.Random(seed).choices(words, k=60))
        for start in ("", "- ", "12. ", "> "):
            lines = plain(start + text, 33).split("\n")
            assert all(sum(map(cells, line.rstrip())) <= 32 for line in lines)
            told = re.sub(r"[•│\s]+", " ", " ".join(lines)).strip()
            said = text.replace("*", "").replace("`", "")
            assert told == f"{start.strip('-> ')} {said}".strip()


def test_however_it_is_cut() -> None:
    text = "# A\n\n- **b** `c`\n\n```py\nx = 1\n```\n1. d *e*\n\n> f\n***\n"
    assert len({shown(text, size=size) for size in range(1, len(text) + 1)}) == 1
