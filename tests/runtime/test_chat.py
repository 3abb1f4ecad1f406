"""Chat templates: equal to transformers on those in use, and harmless on hostile ones."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from trit.errors import TemplateError
from trit.runtime import chat
from trit.runtime.chat import ChatTemplate, render

USER = [{"role": "user", "content": "Hi"}]
TALK = [
    {"role": "system", "content": " Be brief. "},
    {"role": "user", "content": 'What is 2 + 2?\nSay <b>it</b> & "quote" — ñ 你好'},
    {"role": "assistant", "content": "4"},
    {"role": "user", "content": "And 3 + 3?"},
]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Adds <two> numbers — é",
            "parameters": {"type": "object", "properties": {"a": {"type": "number"}}},
        },
    }
]
# Written for these tests, after the public descriptions of each model's format.
TEMPLATES = {
    "chatml": """{% for m in messages %}
<|im_start|>{{ m['role'] }}
{{ m['content'] }}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}""",
    "llama-3": """{{- bos_token }}{% for m in messages %}
{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' -}}
{% endfor %}
{%- if add_generation_prompt -%}
{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}""",
    "mistral": """{{ bos_token }}
{%- set ns = namespace(system='') %}
{%- for m in messages %}
    {%- if m.role == 'system' %}
        {%- set ns.system = m.content ~ '\n\n' %}{% continue %}
    {%- elif m.role not in ['user', 'assistant'] %}
        {{- raise_exception('unknown role ' ~ m.role) }}
    {%- elif m.role == 'user' %}
        {{- '[INST] ' + (ns.system if loop.last else '') + m.content + ' [/INST]' }}
    {%- else %}{{ ' ' + m.content | trim + eos_token }}{% endif %}
{%- endfor %}""",
    "phi-3": "{% for m in messages %}{% if m['role'] in ['system', 'user'] %}"
    "{{ '<|' ~ m['role'] ~ '|>\n' + m['content'] + '<|end|>\n' }}{% else %}"
    "{{ '<|assistant|>\n' + m['content'] + '<|end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}",
    "gemma": """{{ bos_token }}{% if messages[0]['role'] == 'system' %}
{%- set first = messages[0]['content'] + '\n\n' %}{% set rest = messages[1:] %}
{%- else %}{% set first = '' %}{% set rest = messages %}{% endif %}
{%- for m in rest %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('roles must alternate') }}{% endif %}
{{- '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) }}
{{ (first if loop.first else '') + m['content'] | trim }}<end_of_turn>
{% endfor %}{% if add_generation_prompt %}<start_of_turn>model
{% endif %}""",
    "tools": """{% if tools %}{% for tool in tools %}{{ tool | tojson }}
{{ tool | tojson(indent=2) }}{% if not loop.last %}, {% endif %}{% endfor %}{% endif %}
{% macro show(m, depth=0) %}{% if m is mapping %}{% for k, v in m | items %}
{{ k }}={{ v if v is string else v | string }};{% endfor %}{% endif %}{% endmacro %}
{% for m in messages | selectattr('role', 'equalto', 'user') | list %}{{ show(m) }}
{%- if loop.index > 1 %}{% break %}{% endif %}
{%- endfor %}{{ messages | map(attribute='role') | join(', ') | upper }}
{% generation %}{{ messages[-1].content.split('\n')[0].strip().startswith('A') }}{% endgeneration %}
{{ documents is none }} {{ undefined_name is defined }} {{ messages | length }}""",
}


@pytest.fixture(scope="module", autouse=True)
def workers() -> Iterator[None]:
    yield
    chat._close_all()


def of_transformers(template: str, messages: list[dict[str, Any]], **given: Any) -> str:
    pytest.importorskip("transformers")
    from transformers.utils.chat_template_utils import render_jinja_template

    rendered, _ = render_jinja_template([messages], chat_template=template, **given)
    return str(rendered[0])


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("prompt", [False, True])
def test_equals_transformers(name: str, prompt: bool) -> None:
    given: dict[str, Any] = {
        "add_generation_prompt": prompt,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "tools": TOOLS,
    }
    for messages in (USER, TALK):
        text = render(TEMPLATES[name], messages, **given)
        assert "Hi" in text or "3 + 3" in text
        assert text == of_transformers(TEMPLATES[name], messages, **given)


@pytest.mark.parametrize("model", ["smollm2-135m-instruct", "qwen2.5-coder-1.5b-instruct"])
def test_templates_of_real_models(model: str, zoo_model: Callable[[str], Path]) -> None:
    from trit.files import gguf

    with gguf.open(zoo_model(model)) as file:
        template = str(file.metadata["tokenizer.chat_template"])
    calls = [{"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}]
    used = [*USER, {"role": "assistant", "content": "", "tool_calls": calls}]
    used.append({"role": "tool", "content": "3"})
    for messages in (USER, TALK, used):
        for tools in (None, TOOLS):
            text = render(template, messages, tools=tools, eos_token="<|im_end|>")
            expected = of_transformers(
                template,
                messages,
                tools=tools,
                add_generation_prompt=True,
                bos_token="",
                eos_token="<|im_end|>",
            )
            assert text == expected


def test_strftime_now_gives_the_date() -> None:
    assert render("{{ strftime_now('%Y-%m') }}", USER) == time.strftime("%Y-%m")


def test_a_template_may_refuse_the_messages() -> None:
    with pytest.raises(TemplateError, match="no system role"):
        render("{{ raise_exception('no system role') }}", TALK)


def test_a_worker_stays_for_the_next_messages_and_survives_failures() -> None:
    template = ChatTemplate("{{ messages[0].content }}{{ messages[0].x.y }}")
    with pytest.raises(TemplateError, match="no attribute"):
        template.render(USER)
    template = ChatTemplate("{{ messages[0].content }}")
    template.render(USER)
    start = time.perf_counter()
    for n in range(20):
        assert template.render([{"role": "user", "content": str(n)}]) == str(n)
    assert time.perf_counter() - start < 1
    template.close()
    assert template.render(USER) == "Hi", "a closed one starts again"
    template.close()
    template.close()


def test_threads_get_their_own_answers() -> None:
    template = ChatTemplate("{{ messages[0].content }}")
    wrong: list[str] = []

    def ask(name: str) -> None:
        for n in range(30):
            text = f"{name} {n} " + name * 2000
            if template.render([{"role": "user", "content": text}]) != text:
                wrong.append(name)

    threads = [threading.Thread(target=ask, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    template.close()
    assert not wrong


def test_long_messages_and_templates_pass_through() -> None:
    long = "é" * 1_000_000
    assert render("{{ messages[0].content }}", [{"role": "user", "content": long}]) == long
    padding = "{# " + "x" * 500_000 + " #}"
    assert render(padding + "{{ messages[0].content }}", USER) == "Hi"


def test_messages_that_are_no_json_are_an_error() -> None:
    with pytest.raises(TemplateError, match="cannot be given"):
        render("x", [{"role": "user", "content": object()}])


def test_the_worker_sees_nothing_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    template = ChatTemplate("{{ messages }}")
    template.render(USER)
    worker = template._worker
    assert worker is not None
    environ = Path(f"/proc/{worker._process.pid}/environ")
    if not environ.exists():
        pytest.skip("no /proc here")
    assert b"secret" not in environ.read_bytes()
    template.close()


DEEP = 100_000
HOSTILE = {
    "class": "{{ ''.__class__ }}",
    "class of class": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "attr": "{{ ''|attr('__class__') }}",
    "attr in two parts": "{{ ''|attr('__cla' ~ 'ss__') }}",
    "subscript": "{{ ''['__class__'] }}",
    "map attribute": "{{ messages|map(attribute='__class__')|list }}",
    "format": "{{ '{0.__class__}'.format(1) }}",
    "format_map": "{{ '{a.__class__}'.format_map({'a': 1}) }}",
    "format filter": "{{ '%s'|format(messages.__class__) }}",
    "globals": "{{ cycler.__init__.__globals__ }}",
    "self": "{{ self.__init__ }}",
    "namespace": "{{ namespace.__init__ }}",
    "append": "{{ messages.append(1) }}",
    "repeat": "{{ 'a'*10**9 }}",
    "repeat a list": "{{ [1]*10**9 }}",
    "percent": "{{ '%1000000000d' % 1 }}",
    "format width": "{{ '{:1000000000}'.format(1) }}",
    "center": "{{ 'a'|center(1000000000) }}",
    "ljust": "{{ 'a'.ljust(10**10) }}",
    "indent": "{{ [1]|tojson(indent=10**9) }}",
    "power": "{{ 10**(10**10) }}",
    "doubling": "{% set n = namespace(x='aaaaaaaa') %}{% for i in range(60) %}"
    "{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x|length }}",
    "doubling lists": "{% set a = ['x'] %}" + "{% set a = [a, a] %}" * 60 + "{{ a }}",
    "comparing doubled lists": "{% set a = ['x'] %}{% set b = ['x'] %}"
    + "{% set a = [a, a] %}{% set b = [b, b] %}" * 60
    + "{{ a == b }}",
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}"
    "{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}",
    "long output": "{% for a in range(90000) %}{% for b in range(90000) %}xxxxxxxxxxxxxxxxxxxxxxxx"
    "{% endfor %}{% endfor %}",
    "huge range": "{% for a in range(10**9) %}{% endfor %}",
    "macro without end": "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
    "macro that doubles": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}"
    "{% endmacro %}{{ f(100) }}",
    "parentheses": "{{ " + "(" * DEEP + "1" + ")" * DEEP + " }}",
    "brackets": "{{ " + "[" * DEEP + "1" + "]" * DEEP + " }}",
    "additions": "{{ " + "1+" * DEEP + "1 }}",
    "negations": "{{ " + "not " * DEEP + "1 }}",
    "attributes": "{{ messages" + ".x" * DEEP + " }}",
    "filters": "{{ messages" + "|list" * DEEP + " }}",
    "ifs": "{% if 1 %}" * 50_000,
    "loops in loops": "{% for a in [1] %}" * 300 + "{% endfor %}" * 300,
    "include": "{% include 'x' %}",
    "import": "{% import 'x' as y %}",
    "from import": "{% from 'x' import y %}",
    "extends": "{% extends 'x' %}",
    "a source of 1 MB and a byte": "x" * ((1 << 20) + 1),
    "cut off": "{% for m in messages %}",
    "nonsense": "{% for %}",
    "unknown filter": "{{ 1|no_such_filter }}",
    "generation without end": "{% generation %}x",
}


@pytest.mark.parametrize("source", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_templates_end_in_an_error(source: str) -> None:
    before = time.perf_counter(), os.times()
    template = None
    with pytest.raises(TemplateError) as caught:
        template = ChatTemplate(source)
        template.render(USER)
    after = os.times()
    if template:
        template.close()
    used = sum(after[:4]) - sum(before[1][:4])
    assert used < 2, "processor time, the worker's included"
    assert time.perf_counter() - before[0] < chat.WALL_SECONDS
    assert len(str(caught.value)) < 700


def test_memory_stays_bounded() -> None:
    template = ChatTemplate(
        "{% set n = namespace(x=[]) %}{% for i in range(99999) %}"
        "{% set n.x = n.x + ['%d' % i] %}{% endfor %}{{ messages[0].content }}"
    )
    worker = template._worker
    assert worker is not None
    peak = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        status = Path(f"/proc/{worker._process.pid}/statm")
        while not done.is_set():
            try:
                peak = max(peak, int(status.read_text().split()[1]) * 4096)
            except (OSError, IndexError):
                return
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with pytest.raises(TemplateError):
        template.render(USER)
    done.set()
    watcher.join()
    assert peak < 128 << 20, "Python and Jinja take some 25 MB, a template up to 48 more"


def test_output_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "OUTPUT_CHARS", 1000)
    template = ChatTemplate("{{ messages[0].content }}")
    assert template.render([{"content": "x" * 1000}]) == "x" * 1000
    with pytest.raises(TemplateError, match="at most 1000"):
        template.render([{"content": "x" * 1001}])
    template.close()


def test_wall_time_is_limited_where_the_process_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "WALL_SECONDS", 0.0)
    with pytest.raises(TemplateError, match="took more than"):
        ChatTemplate("x").render(USER)


def test_time_in_which_everything_is_paused_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is an hour ahead after the first look, as when this process was stopped as well."""
    template = ChatTemplate("{{ messages[0].content }}")
    worker = template._worker
    assert worker is not None
    os.kill(worker._process.pid, signal.SIGSTOP)
    clock, calls = time.monotonic, iter([0.0])
    monkeypatch.setattr(chat.time, "monotonic", lambda: clock() + next(calls, 3600.0))
    later = threading.Timer(0.6, os.kill, (worker._process.pid, signal.SIGCONT))
    later.start()
    assert template.render(USER) == "Hi"
    later.join()
    template.close()


def test_the_cache_keeps_the_last_few() -> None:
    for n in range(chat._CACHED + 3):
        assert render(f"{n}{{{{ messages[0].content }}}}", USER) == f"{n}Hi"
    assert len(chat._cache) == chat._CACHED
    assert list(chat._cache)[-1].startswith(str(chat._CACHED + 2))
