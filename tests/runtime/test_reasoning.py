"""Thoughts told from answers: wherever the pieces are cut, in streams, in messages, in counts."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import talking_model
from trit.runtime.generate import Request
from trit.runtime.model import Model, load
from trit.runtime.reasoning import Reasoning, Splitter, find, of_prompt
from trit.runtime.sample import Sampler, SamplerSettings
from trit.runtime.tokenizer import Tokenizer

FORM = Reasoning("<think>", "</think>")
BEGUN = Reasoning("<think>", "</think>", begun=True)
CASES = [
    (FORM, "<think>\nso <think> then\n\n</think>\n\nYes. ", "so <think> then", "Yes. "),
    (FORM, "<think>why</think>", "why", ""),
    (FORM, "\n <think> two  lines\n\nhere \n</think>\n\n The <think>answer</think> ",
     "two  lines\n\nhere", "The <think>answer</think> "),
    (FORM, "No thought <think>x</think>", "", "No thought <think>x</think>"),
    (FORM, "  <thin", "", "  <thin"),
    (FORM, " \n", "", " \n"),
    (FORM, "", "", ""),
    (FORM, "<think></think>A", "", "A"),
    (FORM, "<think>never ends </thin", "never ends </thin", ""),
    (BEGUN, "\nso\n</think>\nYes", "so", "Yes"),
    (BEGUN, "so", "so", ""),
    (BEGUN, "</think>Yes", "", "Yes"),
]  # fmt: skip


@pytest.mark.parametrize(("form", "text", "thought", "said"), CASES)
def test_wherever_it_is_cut(form: Reasoning, text: str, thought: str, said: str) -> None:
    for size in range(1, len(text) + 2):
        splitter = Splitter(form)
        parts = [splitter.push(text[at : at + size]) for at in range(0, len(text), size)]
        parts.append(splitter.finish())
        assert ("".join(a for a, _ in parts), "".join(b for _, b in parts)) == (thought, said)


THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ m.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n"
    "{% elif begin %}<think>\n{% endif %}"
)
BEGINNING = THINKING.replace("elif begin", "else")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    keys = {"tokenizer.chat_template": THINKING}
    path = talking_model.write(tmp_path_factory.mktemp("models") / "model.gguf", keys)
    with load(path, threads=1) as opened:
        yield opened


def test_what_a_template_says_of_reasoning(model: Model, tmp_path: Path) -> None:
    ids = model.prompt([{"role": "user", "content": "x"}])
    form = model.reasoning(ids)
    assert form is not None and not form.begun
    off = model.prompt([{"role": "user", "content": "x"}], thinking=False)
    assert model.tokenizer.decode(off).endswith("<think>\n\n</think>\n\n")
    assert not of_prompt(form, model.tokenizer, off).begun
    keys = {"tokenizer.chat_template": BEGINNING}
    with load(talking_model.write(tmp_path / "begins.gguf", keys), threads=1) as other:
        ids = other.prompt([{"role": "user", "content": "x"}])
        form = other.reasoning(ids)
        assert form is not None and form.begun
    with load(talking_model.write(tmp_path / "plain.gguf"), threads=1) as other:
        assert other.reasoning(other.prompt([{"role": "user", "content": "x"}])) is None


def test_tags_that_are_control_tokens(model: Model) -> None:
    """Magistral's: no text otherwise, shown while thoughts are looked for."""
    tokens = [*talking_model.keys()["tokenizer.ggml.tokens"], "[THINK]", "[/THINK]"]  # type: ignore[misc]
    types = np.array([talking_model.NORMAL] * (len(tokens) - 2) + [talking_model.CONTROL] * 2,
                     np.int32)  # fmt: skip
    tokenizer = Tokenizer.from_gguf({
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2",
        **talking_model.keys(), "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
    })  # fmt: skip
    form = find("", tokenizer)
    assert form is not None and form.open == "[THINK]"
    first = len(tokens) - 2
    assert form.tokens == {first, first + 1}
    plain, shown = tokenizer.stream(), tokenizer.stream(shown=form.tokens)
    assert (plain.push(first), shown.push(first)) == ("", "[THINK]")


@pytest.fixture
def says(model: Model, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`says(text)`: every answer from now on is this text, token by token, where the form of the
    answer lets it."""

    def script(text: str) -> None:
        ids = [*model.tokenizer.encode(text, add_special=False), talking_model.EOS]
        starts: dict[int, int] = {}

        def sample(self: Sampler, logits: Any, position: int) -> int:
            token = ids[position - starts.setdefault(id(self), position)]
            return token if np.isfinite(logits[token]) else int(np.argmax(logits))

        monkeypatch.setattr(Sampler, "sample", sample)

    return script


ASKED = [{"role": "user", "content": "x"}]


def test_chat(model: Model, says: Callable[[str], None]) -> None:
    says("<think>ab</think>\n\ncd")
    message = model.chat(ASKED).choices[0].message
    assert (message.content, message.reasoning_content) == ("cd", "ab")
    deltas = [chunk.choices[0].delta for chunk in model.chat(ASKED, stream=True)]
    assert "".join(delta.reasoning_content or "" for delta in deltas) == "ab"
    assert "".join(delta.content or "" for delta in deltas) == "cd"
    usage = model.chat(ASKED).usage
    assert usage.completion_tokens_details.reasoning_tokens == len(
        model.tokenizer.encode("<think>ab</think>", add_special=False)
    )
    says("plain")
    whole = model.chat(ASKED)
    assert whole.usage.completion_tokens_details.reasoning_tokens == 0
    assert "reasoning_content" not in whole.to_dict()["choices"][0]["message"]


def test_thoughts_are_cut_with_the_answer(model: Model, says: Callable[[str], None]) -> None:
    says("<think>abc</think>d")
    ids = model.prompt(ASKED)
    form = model.reasoning(ids)
    most = len(model.tokenizer.encode("<think>a", add_special=False))
    request = Request(ids, SamplerSettings(temperature=0), most, reasoning=form)
    chunks = list(model.answer(request))
    assert "".join(chunk.reasoning for chunk in chunks) == "a"
    assert chunks[-1].stats and chunks[-1].stats.reasoning_tokens == most
    request = Request(ids, SamplerSettings(temperature=0), stop=("c<",), reasoning=form)
    assert "".join(chunk.reasoning for chunk in model.answer(request)) == "ab"


def test_a_form_is_that_of_the_answer(tmp_path: Path, says: Callable[[str], None]) -> None:
    """Thoughts that the prompt began are free, what follows them is JSON."""
    pytest.importorskip("llguidance")
    keys = {"tokenizer.chat_template": BEGINNING}
    with load(talking_model.write(tmp_path / "begins.gguf", keys), threads=1) as model:
        says("so </think>no JSON")
        schema = {"const": "ok"}
        message = model.chat(ASKED, schema=schema, max_tokens=40).choices[0].message
        assert (message.reasoning_content, message.content) == ("so", '"ok"')
