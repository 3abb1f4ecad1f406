"""Markdown on a terminal, word by word as a model writes it.

What was written is never touched again: no cursor is moved, nothing flickers, and the scroll-back
is the answer. So a mark is decided on when the next character is known, a word is shown when it is
whole, because only then it is clear which line it is on, and a line of code when it has ended,
coloured by rich in the light of the lines before it. Tables stay as they are.
"""

import re
import shutil
import unicodedata
from collections.abc import Callable

RESET, BOLD, DIM, ITALIC, CODE = "\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[3m", "\x1b[36m"
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})\s*([\w+#.-]*)[^`]*")
_HEADING = re.compile(r"#{1,6} +")
_BULLET = re.compile(r"( *)[-*+] +")
_NUMBER = re.compile(r"( *)(\d{1,9}[.)]) +")
_QUOTE = re.compile(r" {0,3}> ?")
_RULE = re.compile(r" {0,3}([-*_])( *\1){2,} *")
# What begins a line that may yet become one of the above.
_UNDECIDED = re.compile(r" *(?:[-*+_]( *[-*_])*|#{1,6}|\d{1,9}[.)]?|>|`{1,2}|~{1,2}|[-*+] +|)")
_MOST_WIDTH = 100  # longer lines are hard to read


class Markdown:
    """Writes pieces of an answer, in ANSI colours; `finish` after the last."""

    def __init__(self, write: Callable[[str], object], width: int | None = None) -> None:
        self._write = write
        columns = shutil.get_terminal_size().columns if width is None else width
        self._width = max(20, min(columns - 1, _MOST_WIDTH))
        self._line = ""  # what begins a line and is not understood yet
        self._begins = True
        self._fence = self._language = ""
        self._code: list[str] = []  # lines of the block
        self._new_line()

    def push(self, piece: str) -> None:
        """The next piece."""
        for character in piece:
            if self._fence or self._begins:
                self._at_line(character)
            elif character == "\n":
                self._end_line()
            else:
                self._inline(character)

    def finish(self) -> None:
        """The answer is over."""
        if self._fence and self._closes(self._line):
            self._write(f"{DIM}{self._line}{RESET}")
        elif self._fence and self._line:
            self._code_line(self._line)
        elif self._begins:
            self._say_line(self._line)
        self._settle("")
        self._flush_word()
        self._write(RESET)

    def _new_line(self) -> None:
        self._column = self._indent = 0
        self._word: list[tuple[str, str]] = []  # (style, character)
        self._base = ""  # style of the line
        self._bold = self._italic = self._inline_code = False
        self._raw = False  # no wrapping, no marks
        self._mark = ""  # asterisks, or underscores, whose sense the next character tells
        self._before = " "
        self._quoted = ""

    def _at_line(self, character: str) -> None:
        """A character of a line of code, or of a line that is not understood yet."""
        if character != "\n":
            self._line += character
            if self._fence or _FENCE.fullmatch(self._line) or _RULE.fullmatch(self._line):
                return
            if not _UNDECIDED.fullmatch(self._line):
                line, self._line = self._line, ""
                self._say_line(line)
            return
        line, self._line = self._line, ""
        fence = _FENCE.fullmatch(line)
        if self._fence:
            closes = self._closes(line)
            self._fence_line(line, "", "") if closes else self._code_line(line + "\n")
        elif fence:
            self._fence_line(line, fence[1], fence[2])
        elif _RULE.fullmatch(line):
            self._write(f"{DIM}{'─' * min(self._width, 40)}{RESET}\n")
        else:
            self._say_line(line)
            self._end_line()

    def _closes(self, line: str) -> bool:
        return line.strip().startswith(self._fence) and not line.strip().strip("`~")

    def _fence_line(self, line: str, fence: str, language: str) -> None:
        self._write(f"{DIM}{line}{RESET}\n")
        self._fence, self._language, self._code = fence, language, []

    def _code_line(self, line: str) -> None:
        self._code.append(line)
        self._line = ""
        self._write(highlighted("".join(self._code), self._language))

    def _say_line(self, line: str) -> None:
        """A line whose kind is known; more of it may come."""
        self._begins = False
        if found := _HEADING.match(line):
            self._base = BOLD
        elif found := _QUOTE.match(line):
            self._start("│ ", DIM, 2)
        elif found := _BULLET.match(line):
            self._start(found[1] + "• ", "", len(found[1]) + 2)
        elif found := _NUMBER.match(line):
            self._start(f"{found[1]}{found[2]} ", "", len(found[0]))
        elif line.startswith("|"):
            self._raw = True
        for character in line[found.end() :] if found else line:
            self._inline(character)

    def _start(self, text: str, style: str, indent: int) -> None:
        self._write(f"{style}{text}{RESET if style else ''}")
        self._quoted = f"{style}{text}{RESET}" if style else ""
        self._column = self._indent = indent

    def _end_line(self) -> None:
        self._settle("\n")
        self._flush_word()
        self._write("\n")
        self._new_line()
        self._begins = True

    def _inline(self, character: str) -> None:
        if self._raw:
            self._put(character)
            return
        if self._mark and character != self._mark[0]:
            self._settle(character)
        if character == "`" and self._before != "\\":
            self._inline_code = not self._inline_code
        elif character in "*_" and not self._inline_code and self._before != "\\":
            self._mark += character
            return
        elif character == " ":
            self._flush_word()
            self._space()
        else:
            if self._before == "\\" and character in "*_`#\\" and self._word:
                self._word.pop()  # the backslash was an escape
            self._put(character)
        self._before = character

    def _settle(self, after: str) -> None:
        """Now that the next character is known: a run of marks turns a style on or off, or is
        text."""
        mark, self._mark = self._mark, ""
        if not mark:
            return
        within = mark[0] == "_"  # a word, where underscores mark nothing
        opens = after.strip() != "" and not (within and self._before.isalnum())
        closes = not self._before.isspace() and not (within and after.isalnum())
        is_on = self._bold if len(mark) > 1 else self._italic
        if len(mark) > 3 or not (closes if is_on else opens):
            for character in mark:
                self._put(character)
        else:
            self._bold ^= len(mark) >= 2
            self._italic ^= len(mark) != 2
        self._before = mark[-1]

    def _style(self) -> str:
        if self._inline_code:
            return CODE
        return self._base + BOLD * self._bold + ITALIC * self._italic

    def _put(self, character: str) -> None:
        self._word.append((self._style(), character))
        if self._raw:
            self._flush_word()

    def _space(self) -> None:
        if self._column < self._width:
            self._write(" ")
            self._column += 1

    def _flush_word(self) -> None:
        """Show the word, on the next line if it does not fit on this one."""
        if not self._word:
            return
        length = sum(cells(character) for _, character in self._word)
        if not self._raw and self._column + length > self._width and self._column > self._indent:
            self._write("\n" + (self._quoted or " " * self._indent))
            self._column = self._indent
        text, last = "", ""
        for style, character in self._word:
            if style != last:
                text += (RESET if last else "") + style
                last = style
            text += character
        self._write(text + (RESET if last else ""))
        self._column += length
        self._word = []


def cells(character: str) -> int:
    """Columns that a character takes."""
    if unicodedata.combining(character) or unicodedata.category(character) in ("Cf", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def highlighted(code: str, language: str) -> str:
    """The last line of a block of code, coloured as the block is."""
    from rich.console import Console
    from rich.syntax import Syntax

    whole = code.endswith("\n")
    text = Syntax("", language or "text", theme="ansi_dark").highlight(code)
    last = text.split("\n", allow_blank=True)[code.count("\n") - whole]
    console = Console(force_terminal=True, color_system="standard", width=1 << 16)
    with console.capture() as captured:
        console.print(last, end="", soft_wrap=True, highlight=False)
    return captured.get() + "\n" * whole
