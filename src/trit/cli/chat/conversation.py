"""A conversation: what was said, and the next answer."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from trit.cli._terminal import counted, wrapped
from trit.cli.chat import session
from trit.cli.chat.answer import Shown
from trit.cli.chat.prompt import read_file, titled
from trit.cli.chat.screen import Screen
from trit.cli.chat.session import Message, Opened
from trit.cli.chat.settings import Asked, described
from trit.errors import TritError, UsageError
from trit.runtime.generate import Chunk, Request, Stats, with_seed
from trit.runtime.model import Model

_NEARLY_FULL = 0.9  # of the context


class Conversation:
    """What was said, and what the next answer is made with.

    messages  of the user and the assistant, without thoughts; the system message is `asked.system`
    session   where it is saved in the end; None: nowhere
    markdown  whether answers are shown as such
    stats     of the last answer
    """

    def __init__(self, model: Model, asked: Asked, screen: Screen) -> None:
        self.model, self.asked, self.screen = model, asked, screen
        self._given = asked  # on the command line
        self.session: Path | None = None
        self.messages: list[Message] = []
        self.markdown = True
        self.stats: Stats | None = None
        self._files: list[str] = []  # go with the next message
        self.templated = model.has_template if asked.conversation is None else asked.conversation
        if asked.system is not None and not self.templated:
            raise UsageError(f"{model.path}: no chat template, which --system needs.")

    def greet(self) -> None:
        """Say who is here and how it will answer."""
        model = self.model
        lines = (
            f"{self._called()}, context {model.ctx} tokens",
            f"sampling: {described(self.asked.sampling(model.sampling))}",
            '/help lists commands; """ begins and ends a message of several lines',
        )
        self.screen.note("\n".join(map(wrapped, lines)))
        if not self.templated:
            self.screen.note("no chat template: the model goes on from the bare text")

    def _called(self) -> str:
        """The name in the file, which may be anything, beside the file's own."""
        name, file = self.model.name, self.model.path.name
        return name if name == self.model.path.stem else f"{name} ({file})"

    def with_system(self) -> list[Message]:
        """The messages as the template sees them."""
        if self.asked.system is None:
            return list(self.messages)
        return [{"role": "system", "content": self.asked.system}, *self.messages]

    def add_file(self, path: Path) -> None:
        """Let the text of a file go with the next message."""
        text = titled(path, read_file(path))
        tokens = len(self.model.tokenizer.encode(text, add_special=False))
        self._files.append(text)
        self.screen.note(f"{path.name}: {counted(tokens, 'token')} go with the next message")

    def answer(self, text: str) -> None:
        """Answer a message; without any text (interrupted, refused) it counts as not said."""
        files = self._files
        self.messages.append({"role": "user", "content": "\n\n".join([text, *files])})
        count = len(self.messages)
        self._files = []
        try:
            self._reply(self.asked)
        finally:
            if len(self.messages) == count:
                self.messages.pop()
                self._files = files

    def regenerate(self) -> None:
        """Answer the last message again, with another seed; the old answer stays if none comes."""
        if not self.messages:
            raise UsageError("there is no answer to give again.")
        old = self.messages.pop()
        count = len(self.messages)
        try:
            self._reply(replace(self.asked, seed=None))
        finally:
            if len(self.messages) == count:
                self.messages.append(old)

    def save(self, path: Path) -> None:
        """Write the session to a file. UsageError if it cannot be written."""
        try:
            ids = self._prompt(answering=False) if self.messages else []
            held = session.save(path, self.model, self.asked, self.messages, ids)
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}") from None
        cache = f", with the cache of {counted(held, 'token')}" if held else ""
        count = counted(len(self.messages), "message")
        self.screen.note(wrapped(f"{count} saved in {path}{cache}"))

    def load(self, opened: Opened, *, keep_system: bool = False) -> None:
        """Go on from a session in place of what was said; its settings count where the command line
        gives none, its system message unless that one's is to be kept. A conversation that is saved
        in the end is this one from now on. Says where it has to be read again, and why."""
        given = self._given if keep_system else replace(self._given, system=None)
        asked = session.with_settings(given, opened)
        if asked.system is not None and not self.templated:
            raise UsageError("it has a system message, and the model has no chat template.")
        self.messages, self.asked = opened.messages, asked
        if self.session is not None:
            self.session = opened.path
        self.model.forget()
        count = counted(len(self.messages), "message")
        try:
            held = session.restore(opened, self.model)
        except TritError as error:
            self.screen.note(wrapped(f"{count} loaded, without the cache: {error}"))
            tokens = len(self._prompt(answering=False)) if self.messages else 0
            again = f"the next message makes the model read all {counted(tokens, 'token')} again"
            self.screen.note(wrapped(f"{again}; /clear drops them"))
            return
        again = f", with the cache of {counted(held, 'token')}" if held else ""
        self.screen.note(f"{count} loaded{again}; the next one goes on from them")

    def _reply(self, asked: Asked) -> None:
        """Stream the answer to the messages and keep it, also what there is of it at a Ctrl-C."""
        ids = self._prompt()
        request = Request(
            ids,
            with_seed(asked.sampling(self.model.sampling)),
            asked.max_tokens,
            asked.stop,
            grammar=self.model.grammar(asked.schema),
            reasoning=self.model.reasoning(ids) if self.templated else None,
        )
        think = None if asked.think == "off" else asked.think
        shown = Shown(self.screen, think, markdown=self.markdown and asked.schema is None)
        chunks: list[Chunk] = []
        try:
            stream = self.model.answer(request)
            with closing(cast(Any, stream)):
                for chunk in stream:
                    chunks.append(chunk)
                    shown.push(chunk)
        finally:
            shown.finish()
            reply = "".join(chunk.text for chunk in chunks)
            if reply:
                self.messages.append({"role": "assistant", "content": reply})
        self._report(chunks[-1])

    def _prompt(self, *, answering: bool = True) -> list[int]:
        """The ids of the conversation, up to where the model is `answering`."""
        if self.templated:
            said, thinking = self.with_system(), self.asked.thinking
            return self.model.prompt(said, thinking=thinking, add_generation_prompt=answering)
        parts = [
            ("\n" if number and said["role"] == "user" else "") + said["content"]
            for number, said in enumerate(self.messages)
        ]
        return self.model.tokenize("".join(parts))

    def _report(self, last: Chunk) -> None:
        stats = self.stats = last.stats
        assert stats is not None
        used, ctx = stats.prompt_tokens + stats.tokens, self.model.ctx
        speed = "" if stats.generation_tps is None else f", {stats.generation_tps:.1f} t/s"
        self.screen.note(
            f"[{counted(stats.tokens, 'token')}{speed}, first after {stats.prompt_seconds:.2f} s, "
            f"context {self.screen.gauge(used / ctx)}{min(used, ctx)} of {ctx}]"
        )
        if last.finish_reason == "length" and used > ctx:
            self.screen.note("the context is full: /clear begins anew, -c makes it larger")
        elif used > _NEARLY_FULL * ctx:
            self.screen.note("the context is nearly full: /clear begins anew, -c makes it larger")
