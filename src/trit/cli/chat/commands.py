"""The commands of a chat: what begins with a slash."""

import difflib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from trit.cli._terminal import table, wrapped
from trit.cli.chat.conversation import Conversation
from trit.cli.chat.session import located, named, open_session
from trit.cli.chat.settings import Asked, biases, described, form_of
from trit.cli.chat.stats import Memory, speeds
from trit.errors import UsageError

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
    "logit-bias": ("logit_bias", lambda text: biases(text.split())),
    "stop": ("stop", lambda text: (text,)),
    "n": ("max_tokens", int),
    "system": ("system", str),
    "think": ("think", str),
    "format": ("schema", lambda text: form_of(text, None)),
    "schema": ("schema", lambda text: form_of("text", text)),
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
        conversation.screen.note(wrapped(f"/set NAME VALUE, of {', '.join(SETTINGS)}, markdown"))
        return
    name, text = words[0].replace("_", "-"), words[1] if len(words) > 1 else ""
    if name == "markdown":
        conversation.markdown = _on_or_off(text)
    elif name not in SETTINGS:
        raise UsageError(f"no such setting: {words[0]}. There are {', '.join(SETTINGS)}, markdown.")
    else:
        _change(conversation, name, text)
    conversation.screen.note(f"{name}: {text or 'as the model has it'}")


def _change(conversation: Conversation, name: str, text: str) -> None:
    field, read = SETTINGS[name]
    try:
        value = read(text) if text else getattr(Asked(), field)
    except ValueError:
        raise UsageError(f"/set {name} {text}: expected a number.") from None
    if name == "n" and value == -1:  # no limit
        value = None
    if name == "system" and value is not None and not conversation.templated:
        raise UsageError("the model has no chat template, which a system message needs.")
    changes: dict[str, Any] = {field: value}
    asked = replace(conversation.asked, **changes)
    asked.check()  # refuses what makes no sense
    conversation.model.grammar(asked.schema)
    conversation.asked = asked


def _on_or_off(text: str) -> bool:
    if text not in ("on", "off"):
        raise UsageError(f"/set markdown {text}: expected on or off.")
    return text == "on"


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
            ("model", model.name),
            ("file", str(model.path)),
            ("architecture", model.plan.arch),
            ("context", f"{model.ctx} tokens of the {model.plan.context_length} it was made for"),
            ("engine", f"{model.engine.isa}, {model.engine.threads} threads"),
            ("sampling", described(asked.sampling(model.sampling))),
            ("most tokens", "until it ends" if asked.max_tokens is None else str(asked.max_tokens)),
            ("thoughts", asked.think or "fold"),
            ("form", "any text" if asked.schema is None else "JSON of a schema"),
            ("system", asked.system or "none"),
            ("messages", str(len(conversation.messages))),
        ]
        conversation.screen.note(table(rows))


def _save(conversation: Conversation, rest: str) -> None:
    if not rest:
        raise UsageError("no name: /save NAME, or a path such as talk.session or talk.json.")
    conversation.save(located(rest))


def _load(conversation: Conversation, rest: str) -> None:
    if not rest:
        names = named()
        conversation.screen.note(f"/load NAME|FILE; saved: {', '.join(names) or 'none'}")
        return
    conversation.load(open_session(located(rest)))


def _file(conversation: Conversation, rest: str) -> None:
    if not rest:
        raise UsageError("no file: /file PATH.")
    conversation.add_file(Path(rest).expanduser())


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
    "set": Command(_set, "NAME VALUE: temp, seed, system, think …; no value: the model's own"),
    "show": Command(_show, "the model and the settings; /show template, /show messages"),
    "file": Command(_file, "PATH: the text of a file goes with the next message"),
    "load": Command(_load, "NAME|FILE: go on from a saved conversation"),
    "save": Command(_save, "NAME|FILE: save the conversation and the model's cache of it"),
    "clear": Command(_clear, "forget the conversation"),
    "regen": Command(_regen, "answer the last message again"),
    "stats": Command(_stats, "what the last answer took: speed, context, memory"),
    "bye": Command(_bye, "leave"),
    "help": Command(_help, "this list"),
}
ALIASES = {"?": "help", "exit": "bye", "quit": "bye"}
