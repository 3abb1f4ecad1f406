"""Renders one chat template, in a process of its own and under limits. Run by chat.py, as a script.

A template comes with a model and may be hostile. Jinja's sandbox keeps it away from Python's
insides, but bounds neither time nor memory: `'a' * 10**9` is a legal expression, and is evaluated
while compiling. So the operating system bounds them, compiling included: a timer on processor time
that kills, a limit on address space, and no new files or processes.

Frames on stdin and stdout: a four-byte length, then JSON. The first request has the template's
`source`, the `paths` to import Jinja from and the `limits`; each one after has the variables to
render with. An answer is {"text": …} or {"error": …}.
"""

import json
import resource
import signal
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Template
    from jinja2.sandbox import ImmutableSandboxedEnvironment

Json = dict[str, Any]
# What Jinja and Python import when it is first used.
_WARM_UP = """{% for a in ['\\n'] %}{{ a|tojson }}{{ strftime_now('%d %b %Y') }}{% endfor %}"""


def main() -> None:
    request = _receive()
    if request is None:
        return
    sys.path += request["paths"]
    limits = request["limits"]
    try:
        environment = _environment()
        environment.from_string(_WARM_UP).render()
    except ImportError as error:
        return _send({"error": f"Jinja cannot be imported: {error}"})
    _limit_memory(limits["memory_bytes"])
    signal.setitimer(signal.ITIMER_PROF, limits["seconds"])
    problem, template = "", None
    try:
        template = environment.from_string(request["source"])
    except BaseException as error:
        problem = _explain(error)
    while (request := _receive()) is not None:
        if template is None:
            return _send({"error": problem})
        signal.setitimer(signal.ITIMER_PROF, limits["seconds"])
        answer = _render(template, request, limits["output_chars"])
        signal.setitimer(signal.ITIMER_PROF, 0)
        _send(answer)


def _render(template: "Template", variables: Json, longest: int) -> Json:
    try:
        text = template.render(variables)
    except BaseException as error:
        return {"error": _explain(error)}
    if len(text) > longest:
        return {"error": f"it writes {len(text)} characters; at most {longest} are allowed"}
    return {"text": text}


def _environment() -> "ImmutableSandboxedEnvironment":
    """Hugging Face's conventions for chat templates (transformers, chat_template_utils.py).

    Imports all that rendering may need: later, no file may be opened.
    """
    import pprint  # noqa: F401  by a filter

    import jinja2.debug
    import jinja2.ext
    import jinja2.nodes
    import jinja2.parser
    from jinja2.exceptions import SecurityError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(jinja2.ext.Extension):
        """{% generation %} marks what the assistant said, for training; here it is its content."""

        tags = {"generation"}  # noqa: RUF012  the class attribute of Jinja's interface

        def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
            scope = jinja2.nodes.Scope(lineno=next(parser.stream).lineno)
            scope.body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return scope

    class Sandbox(ImmutableSandboxedEnvironment):
        def unsafe_undefined(self, obj: Any, attribute: str) -> Any:
            # Jinja makes it an undefined value, which prints as nothing: say it instead.
            raise SecurityError(f"access to '{attribute}' of a {type(obj).__name__} is not allowed")

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment = Sandbox(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[Generation, jinja2.ext.loopcontrols],
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _strftime_now(layout: str) -> str:
    return datetime.now().strftime(layout)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Not Jinja's own, which escapes for HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _limit_memory(extra_bytes: int) -> None:
    """Allow this much more address space than is used now; no new file, no core dump."""
    datetime.now().astimezone()  # reads the time zone, while files may be opened
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    statm = Path("/proc/self/statm")  # Linux; elsewhere the timer alone bounds what can be filled
    if statm.exists():
        pages = int(statm.read_text().split()[0])
        most = pages * resource.getpagesize() + extra_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))


def _explain(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "it needs too much memory"
    if isinstance(error, RecursionError):
        return "it is nested too deeply, or calls itself without end"
    message = str(error) or type(error).__name__
    line = getattr(error, "lineno", None)
    return f"line {line}: {message:.500}" if line else f"{message:.500}"


def _receive() -> Json | None:
    head = sys.stdin.buffer.read(4)
    if len(head) < 4:
        return None
    message: Json = json.loads(sys.stdin.buffer.read(int.from_bytes(head, "big")))
    return message


def _send(message: Json) -> None:
    body = json.dumps(message).encode()
    sys.stdout.buffer.write(len(body).to_bytes(4, "big") + body)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
