"""A conversation: what was said, and the next answer."""

from contextlib import closing
from dataclasses import replace
from typing import Any, cast

from trit.cli._chat_settings import Asked, described
from trit.cli._chat_terminal import Screen
from trit.cli._terminal import counted
from trit.errors import UsageError
from trit.runtime.generate import Chunk, Stats, with_seed
from trit.runtime.model import Model

Message = dict[str, str]


class Conversation:
    """What was said, and what the next answer is made with.

    messages  of the user and the assistant; the system message is `asked.system`
    stats     of the last answer
    """

    def __init__(self, model: Model, asked: Asked, screen: Screen) -> None:
        self.model, self.asked, self.screen = model, asked, screen
        self.messages: list[Message] = []
        self.stats: Stats | None = None
        self.templated = model.has_template if asked.conversation is None else asked.conversation
        if asked.system is not None and not self.templated:
            raise UsageError(f"{model.path}: no chat template, which --system needs.")

    def greet(self) -> None:
        """Say who is here and how it will answer."""
        model = self.model
        self.screen.note(
            f"{model.name} ({model.path}), context {model.ctx} tokens\n"
            f"sampling: {described(self.asked.sampling(model.sampling))}\n"
            '/help lists commands; """ begins and ends a message of several lines'
        )
        if not self.templated:
            self.screen.note("no chat template: the model goes on from the bare text")

    def with_system(self) -> list[Message]:
        """The messages as the template sees them."""
        if self.asked.system is None:
            return list(self.messages)
        return [{"role": "system", "content": self.asked.system}, *self.messages]

    def answer(self, text: str) -> None:
        """Answer a message; without any text (interrupted, refused) it counts as not said."""
        self.messages.append({"role": "user", "content": text})
        count = len(self.messages)
        try:
            self._reply(self.asked)
        finally:
            if len(self.messages) == count:
                self.messages.pop()

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

    def _reply(self, asked: Asked) -> None:
        """Stream the answer to the messages and keep it, also what there is of it at a Ctrl-C."""
        sampling = with_seed(asked.sampling(self.model.sampling))
        chunks: list[Chunk] = []
        try:
            stream = self.model.stream(
                self._prompt(), max_tokens=asked.max_tokens, stop=asked.stop, sampling=sampling
            )
            with closing(cast(Any, stream)):
                for chunk in stream:
                    chunks.append(chunk)
                    self.screen.write(chunk.text)
        finally:
            reply = "".join(chunk.text for chunk in chunks)
            if reply:
                self.messages.append({"role": "assistant", "content": reply})
        self.screen.write("" if reply.endswith("\n") else "\n")
        self._report(chunks[-1])

    def _prompt(self) -> list[int]:
        if self.templated:
            return self.model.prompt(self.with_system())
        parts = [
            ("\n" if number and said["role"] == "user" else "") + said["content"]
            for number, said in enumerate(self.messages)
        ]
        return self.model.tokenize("".join(parts))

    def _report(self, last: Chunk) -> None:
        stats = self.stats = last.stats
        assert stats is not None
        used = stats.prompt_tokens + stats.tokens
        speed = "" if stats.generation_tps is None else f", {stats.generation_tps:.1f} t/s"
        self.screen.note(
            f"[{counted(stats.tokens, 'token')}{speed}, first after {stats.prompt_seconds:.2f} s, "
            f"context {min(used, self.model.ctx)} of {self.model.ctx}]"
        )
        if last.finish_reason == "length" and used > self.model.ctx:
            self.screen.note("the context is full: /clear begins anew, -c makes it larger")
