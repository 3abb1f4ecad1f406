"""The commands of a chat: what begins with a slash.

A saved conversation is JSON: {"trit_chat": 1, "model": name, "messages": [{"role", "content"}]}.
"""

import difflib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from trit.cli._chat_conversation import Conversation
from trit.cli._chat_settings import described
from trit.cli._chat_stats import Memory, speeds
from trit.cli._terminal import table
from trit.errors import InvalidFileError, UsageError

FORMAT_KEY = "trit_chat"
FORMAT_VERSION = 1
MAX_FILE_BYTES = 64 << 20
_ROLES = ("system", "user", "assistant")
# Name in /set -> field of Asked, and what reads its value.
SETTINGS: dict[str, tuple[str, Callable[[str], object]]] = {
    "temp": ("temperature", float),
    "top-k": ("top_k", int),
    "top-p": ("top_p", float),
    "min-p": ("min_p", float),
    "repeat-penalty": ("repeat_penalty", float),
    "repeat-last-n": ("penalty_last_n", int),
    "presence-penalty": ("presence_penalty", float),
    "frequency-penalty": ("frequency_penalty", float),
    "seed": ("seed", int),
    "n": ("max_tokens", int),
    "system": ("system", str),
}


class Command(NamedTuple):
    """What a command does with the rest of its line; False leaves the chat."""

    run: Callable[[Conversation, str], bool | None]
    help: str


def obey(line: str, conversation: Conversation) -> bool:
    """Carry out a line such as '/set temp 0'; False when it was to leave. Raises UsageError."""
    name, _, rest = line[1:].partition(" ")
    name = ALIASES.get(name, name)
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"Did you mean /{near[0]}?" if near else "/help lists them."
        raise UsageError(f"no such command: /{name}. {hint}")
    return COMMANDS[name].run(conversation, rest.strip()) is not False


def _help(conversation: Conversation, rest: str) -> None:
    rows = [(f"/{name}", command.help) for name, command in COMMANDS.items()]
    rows += [('"""', "begins and ends a message of several lines")]
    rows += [("Ctrl-C", "stops the answer; again: leaves. Ctrl-D leaves")]
    conversation.screen.note(table(rows))


def _set(conversation: Conversation, rest: str) -> None:
    words = rest.split(None, 1)
    if words and words[0] == "parameter":  # as ollama has it
        words = words[1].split(None, 1) if len(words) > 1 else []
    if not words:
        conversation.screen.note(f"/set NAME VALUE, of {', '.join(SETTINGS)}")
        return
    name = words[0].replace("_", "-")
    if name not in SETTINGS:
        raise UsageError(f"no such setting: {words[0]}. There are {', '.join(SETTINGS)}.")
    field, read = SETTINGS[name]
    text = words[1] if len(words) > 1 else ""
    try:
        value = read(text) if text else None
    except ValueError:
        raise UsageError(f"/set {name} {text}: expected a number.") from None
    if name == "n" and isinstance(value, int) and value < 1:
        value = None
    if name == "system" and value is not None and not conversation.templated:
        raise UsageError("the model has no chat template, which a system message needs.")
    changes: dict[str, Any] = {field: value}
    asked = replace(conversation.asked, **changes)
    asked.sampling(conversation.model.sampling)  # refuses what makes no sense
    conversation.asked = asked
    conversation.screen.note(f"{name}: {'as the model has it' if value is None else value}")


def _show(conversation: Conversation, rest: str) -> None:
    model, asked = conversation.model, conversation.asked
    if rest == "template":
        conversation.screen.note(str(model.metadata.get("tokenizer.chat_template", "none")))
    elif rest == "messages":
        for said in conversation.with_system():
            conversation.screen.note(f"{said['role']}: {said['content']}")
    elif rest:
        raise UsageError(f"/show {rest}: there are /show, /show template and /show messages.")
    else:
        rows = [
            ("model", f"{model.name} ({model.path})"),
            ("architecture", model.plan.arch),
            ("context", f"{model.ctx} tokens of the {model.plan.context_length} it was made for"),
            ("engine", f"{model.engine.isa}, {model.engine.threads} threads"),
            ("sampling", described(asked.sampling(model.sampling))),
            ("most tokens", "until it ends" if asked.max_tokens is None else str(asked.max_tokens)),
            ("system", asked.system or "none"),
            ("messages", str(len(conversation.messages))),
        ]
        conversation.screen.note(table(rows))


def _save(conversation: Conversation, rest: str) -> None:
    path = _path(rest, "/save FILE")
    if path.exists():
        _read_chat(path)  # only a saved conversation is replaced
    answer = {
        FORMAT_KEY: FORMAT_VERSION,
        "model": conversation.model.name,
        "messages": conversation.with_system(),
    }
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            json.dump(answer, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UsageError(f"{path}: {error.strerror}") from None
    conversation.screen.note(f"{len(conversation.messages)} messages saved in {path}")


def _load(conversation: Conversation, rest: str) -> None:
    messages = _read_chat(_path(rest, "/load FILE"))
    system = None
    if messages and messages[0]["role"] == "system":
        system = messages.pop(0)["content"]
        if not conversation.templated:
            raise UsageError("it has a system message, and the model has no chat template.")
    conversation.messages = messages
    conversation.asked = replace(conversation.asked, system=system)
    conversation.screen.note(f"{len(messages)} messages loaded; the next one goes on from them")


def _path(text: str, usage: str) -> Path:
    if not text:
        raise UsageError(f"no file: {usage}")
    return Path(text).expanduser()


def _read_chat(path: Path) -> list[dict[str, str]]:
    """The messages of a saved conversation; they end with an answer, or there are none."""
    problem = f"expected a conversation that /save wrote (JSON with '{FORMAT_KEY}')."
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InvalidFileError(path, "", f"more than {MAX_FILE_BYTES >> 20} MiB.")
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise InvalidFileError(path, "", problem) from None
    if not isinstance(found, dict) or found.get(FORMAT_KEY) != FORMAT_VERSION:
        raise InvalidFileError(path, "", problem)
    messages = found.get("messages")
    if not isinstance(messages, list):
        raise InvalidFileError(path, "key 'messages'", "expected a list.")
    for number, said in enumerate(messages):
        proper = isinstance(said, dict) and said.keys() == {"role", "content"}
        if not proper or said["role"] not in _ROLES or not isinstance(said["content"], str):
            raise InvalidFileError(path, f"message {number}", "expected a role and a content.")
    roles = [said["role"] for said in messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if turns != ["user", "assistant"] * (len(turns) // 2):
        raise InvalidFileError(path, "key 'messages'", "expected user and assistant in turn.")
    return messages


def _clear(conversation: Conversation, rest: str) -> None:
    conversation.messages = []
    conversation.model.forget()
    conversation.screen.note("forgotten; the settings stay")


def _regen(conversation: Conversation, rest: str) -> None:
    conversation.regenerate()


def _stats(conversation: Conversation, rest: str) -> None:
    stats = conversation.stats
    if stats is None:
        conversation.screen.note("nothing was answered yet")
        return
    used = stats.prompt_tokens + stats.tokens
    rows = [
        *speeds(stats),
        ("first token", f"after {stats.prompt_seconds:.2f} s"),
        ("context", f"{used} of {conversation.model.ctx} tokens"),
        *Memory.now(conversation.model).rows(),
    ]
    conversation.screen.note(table(rows))


def _bye(conversation: Conversation, rest: str) -> bool:
    return False


COMMANDS = {
    "set": Command(_set, "NAME VALUE: temp, top-k, seed, system …; no value: the model's own"),
    "show": Command(_show, "the model and the settings; /show template, /show messages"),
    "load": Command(_load, "FILE: go on from a saved conversation"),
    "save": Command(_save, "FILE: save the conversation"),
    "clear": Command(_clear, "forget the conversation"),
    "regen": Command(_regen, "answer the last message again"),
    "stats": Command(_stats, "what the last answer took: speed, context, memory"),
    "bye": Command(_bye, "leave"),
    "help": Command(_help, "this list"),
}
ALIASES = {"?": "help", "exit": "bye", "quit": "bye"}
