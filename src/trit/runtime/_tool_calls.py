"""Finds tool calls in an answer while it is written, in the form of Hermes and Qwen:

    <tool_call>
    {"name": "weather", "arguments": {"city": "Rome"}}
    </tool_call>

Other forms stay text, and so does what is between the tags and no such object: nothing that a model
says is lost.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from trit.runtime._generation_text import StopCutter

OPEN, CLOSE = "<tool_call>", "</tool_call>"


@dataclass(frozen=True)
class Found:
    """A call: the function's name, and its arguments as JSON text."""

    name: str
    arguments: str


class ToolCallParser:
    """Takes an answer in pieces; holds back what is, or may become, a call."""

    def __init__(self) -> None:
        self._outside: StopCutter | None = StopCutter((OPEN,))
        self._inside = ""

    def push(self, piece: str) -> tuple[str, list[Found]]:
        """The text that is certainly no call, and the calls that `piece` completes."""
        text, calls = "", []
        while piece:
            if self._outside is not None:
                text += self._outside.push(piece)
                if not self._outside.stopped:
                    break
                piece, self._outside = self._outside.rest, None
                continue
            self._inside += piece
            body, close, piece = self._inside.partition(CLOSE)
            if not close:
                break
            call = _parse(body)
            if call is None:
                text += OPEN + body + CLOSE
            else:
                calls.append(call)
            self._outside, self._inside = StopCutter((OPEN,)), ""
        return text, calls

    def finish(self) -> str:
        """What was held back and is no call, once no more comes."""
        return OPEN + self._inside if self._outside is None else self._outside.finish()


def _parse(body: str) -> Found | None:
    try:
        call = json.loads(body, parse_constant=_refuse)  # NaN is no JSON
    except (ValueError, RecursionError):
        return None
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return None
    arguments = call.get("arguments")
    if arguments is None:
        arguments = call.get("parameters")
    if arguments is None:
        arguments = {}
    if isinstance(arguments, str):
        return Found(call["name"], arguments)
    if not isinstance(arguments, dict):
        return None
    return Found(call["name"], json.dumps(arguments, ensure_ascii=False))


def _refuse(constant: str) -> None:
    raise ValueError(constant)
