"""Renders chat templates: messages to the text a model was trained to see.

    template = ChatTemplate(source)          # starts its worker; costs this process nothing
    template.render([{"role": "user", "content": "Hi"}])

Templates are programs that come with a model, so each is compiled and run in a worker process with
limits on time, memory and output (_template_worker.py). Starting one takes about 0.1 s, on another
core while the model loads, and it stays for the next messages. Conventions: Hugging Face's
apply_chat_template.
"""

from __future__ import annotations

import atexit
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from trit.errors import TemplateError

MAX_SOURCE_BYTES = 1 << 20
CPU_SECONDS = 0.6  # of the worker: for compiling, and for each rendering
WALL_SECONDS = 10.0  # a busy machine may take this long to start the worker and answer
_LOOK_SECONDS = 0.25  # how long is waited at a time
MEMORY_BYTES = 48 << 20  # beyond what Python and Jinja take
OUTPUT_CHARS = 8 << 20
_CACHED = 4


class ChatTemplate:
    """One template and its worker. Safe to share between threads; `close` ends the worker."""

    def __init__(self, source: str) -> None:
        """TemplateError if `source` is too long. Other faults show when rendering."""
        size = len(source.encode("utf-8", "replace"))
        if size > MAX_SOURCE_BYTES:
            raise TemplateError(
                f"The chat template has {size} bytes; at most {MAX_SOURCE_BYTES} are allowed."
            )
        self.source = source
        self._lock = threading.Lock()
        self._worker: _Worker | None = _Worker(source)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        bos_token: str = "",
        eos_token: str = "",
        tools: Sequence[Mapping[str, Any]] | None = None,
        thinking: bool | None = None,
    ) -> str:
        """The prompt for `messages`, which must be made of JSON's types.

        `thinking`: the variable enable_thinking of templates that can do without; None: not set.
        TemplateError if the template fails, refuses the messages or exceeds its limits.
        """
        variables = {
            "messages": messages,
            "tools": tools,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
            "bos_token": bos_token,
            "eos_token": eos_token,
        }
        if thinking is not None:
            variables["enable_thinking"] = thinking
        try:
            request = json.dumps(variables).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise TemplateError(f"The messages cannot be given to a template: {error}.") from None
        with self._lock:
            worker = self._worker or _Worker(self.source)
            self._worker = None  # unless it survives this rendering
            answer = worker.ask(request)
            self._worker = worker
        if "error" in answer:
            raise TemplateError(f"The chat template failed: {answer['error'].rstrip('.')}.")
        return str(answer["text"])

    def close(self) -> None:
        with self._lock:
            if self._worker:
                self._worker.stop()
            self._worker = None


def render(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool = True,
    bos_token: str = "",
    eos_token: str = "",
    tools: Sequence[Mapping[str, Any]] | None = None,
) -> str:
    """`ChatTemplate(template).render(…)`, keeping the workers of the last few templates."""
    with _cache_lock:
        chat = _cache.pop(template, None) or ChatTemplate(template)
        _cache[template] = chat
        oldest = _cache.popitem(last=False)[1] if len(_cache) > _CACHED else None
    if oldest:
        oldest.close()
    return chat.render(
        messages,
        add_generation_prompt=add_generation_prompt,
        bos_token=bos_token,
        eos_token=eos_token,
        tools=tools,
    )


_cache: OrderedDict[str, ChatTemplate] = OrderedDict()
_cache_lock = threading.Lock()


@atexit.register
def _close_all() -> None:
    with _cache_lock:
        for chat in _cache.values():
            chat.close()
        _cache.clear()


class _Worker:
    """The process that renders one template."""

    def __init__(self, source: str) -> None:
        script = Path(__file__).with_name("_template_worker.py")
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                env={key: os.environ[key] for key in _KEPT if key in os.environ},
                start_new_session=True,  # Ctrl-C is for the answer, not for the template
            )
        except OSError as error:
            raise TemplateError(
                f"No process could be started for the chat template: {error}."
            ) from None
        assert self._process.stdin and self._process.stdout
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        os.set_blocking(self._stdin.fileno(), False)
        limits = {
            "seconds": CPU_SECONDS,
            "memory_bytes": MEMORY_BYTES,
            "output_chars": OUTPUT_CHARS,
        }
        first = {"source": source, "paths": _import_paths(), "limits": limits}
        self._unsent = bytearray(_frame(json.dumps(first).encode()))
        self._received = bytearray()
        self._write()

    def ask(self, request: bytes) -> dict[str, Any]:
        """The answer to a request; on TemplateError the process is gone."""
        self._unsent += _frame(request)
        try:
            return self._exchange(WALL_SECONDS)
        except BaseException:
            self._process.kill()
            self.stop()
            raise

    def stop(self) -> None:
        """End the process (it ends by itself once nothing can be asked any more)."""
        self._stdin.close()
        self._stdout.close()
        try:
            self._process.wait(CPU_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _exchange(self, seconds: float) -> dict[str, Any]:
        """Send what is unsent and wait for an answer.

        A look counts for its own length at most: whatever paused this process (a frozen container,
        say) may have paused the worker too, and that is no time of the template's.
        """
        with selectors.DefaultSelector() as selector:
            selector.register(self._stdout, selectors.EVENT_READ)
            selector.register(self._stdin, selectors.EVENT_WRITE)
            while True:
                begun = time.monotonic()
                ready = selector.select(min(seconds, _LOOK_SECONDS))
                seconds = max(0.0, seconds - min(time.monotonic() - begun, _LOOK_SECONDS))
                if not ready and not seconds:
                    raise TemplateError(f"The chat template took more than {WALL_SECONDS:g} s.")
                for key, _ in ready:
                    if key.fileobj is self._stdin:
                        if self._write():
                            selector.unregister(self._stdin)
                    elif (answer := self._read()) is not None:
                        return answer

    def _write(self) -> bool:
        """Write what the pipe takes; True when nothing is left (or the process has ended)."""
        try:
            del self._unsent[: os.write(self._stdin.fileno(), self._unsent)]
        except BlockingIOError:
            return False
        except BrokenPipeError:
            return True  # reading tells why
        return not self._unsent

    def _read(self) -> dict[str, Any] | None:
        piece = os.read(self._stdout.fileno(), 1 << 20)
        if not piece:
            raise TemplateError(f"The chat template {self._death()}.")
        self._received += piece
        size = int.from_bytes(self._received[:4], "big")
        if len(self._received) < 4 or len(self._received) < 4 + size:
            return None
        answer: dict[str, Any] = json.loads(self._received[4 : 4 + size])
        del self._received[: 4 + size]
        return answer

    def _death(self) -> str:
        code = self._process.wait()
        if code == -signal.SIGPROF:
            return f"took more than {CPU_SECONDS:g} s of processor time"
        return f"brought down the process that rendered it (exit status {code})"


_KEPT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TZ")  # all a worker sees of the environment


def _frame(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def _import_paths() -> list[str]:
    """The folders that hold Jinja and what it imports."""
    paths: list[str] = []
    for name in ("jinja2", "markupsafe"):
        spec = find_spec(name)
        if spec is None or spec.origin is None:
            raise TemplateError(f"Chat templates need the package {name}: pip install jinja2.")
        folder = str(Path(spec.origin).parent.parent)
        if folder not in paths:
            paths.append(folder)
    return paths
