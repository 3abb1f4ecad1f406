"""`trit.load` and the model: defaults, prompts, chat in OpenAI's shape, what is refused."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import talking_model
from trit.errors import (
    DoesNotFitError,
    InvalidFileError,
    SourceError,
    TemplateError,
    UnsupportedError,
    UsageError,
)
from trit.files.gguf import Value, ValueType
from trit.runtime import model as model_module
from trit.runtime._generation_openai import ChatCompletion
from trit.runtime.model import Model, load
from trit.runtime.sample import SamplerSettings

HELLO = [{"role": "user", "content": "the hello"}]
RENDERED = "<|im_start|>user\nthe hello<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talking_model.write(tmp_path_factory.mktemp("models") / "model.gguf")


@pytest.fixture(scope="module")
def model(path: Path) -> Iterator[Model]:
    with load(path, threads=1) as opened:
        yield opened


def test_generate_takes_texts_ids_and_lists(model: Model) -> None:
    one = model.generate("the", max_tokens=8, seed=1)
    assert model.generate(model.tokenize("the"), max_tokens=8, seed=1).tokens == one.tokens
    pair = model.generate(["the", "a"], max_tokens=8, seed=1)
    assert [one.tokens, model.generate("a", max_tokens=8, seed=1).tokens] == [
        answer.tokens for answer in pair
    ]
    ids = [model.tokenize("the"), model.tokenize("a")]
    assert [a.text for a in model.generate(ids, max_tokens=8, seed=1)] == [a.text for a in pair]
    assert model.generate([]) == []
    text = "".join(chunk.text for chunk in model.stream("the", max_tokens=8, seed=1))
    assert text == one.text


def test_settings_of_a_call_replace_the_models(model: Model) -> None:
    greedy = model.generate("the", max_tokens=8, temperature=0)
    assert model.generate("the", max_tokens=8, top_k=1).tokens == greedy.tokens
    assert model.generate("the", max_tokens=8, top_p=0.0).tokens == greedy.tokens
    assert model.generate("the", max_tokens=8, min_p=1.0).tokens == greedy.tokens
    whole = SamplerSettings(temperature=0)
    assert model.generate("the", max_tokens=8, sampling=whole).tokens == greedy.tokens
    stop = greedy.text[2:4]
    cut = model.generate("the", max_tokens=8, temperature=0, stop=[stop])
    assert cut.text == greedy.text[: greedy.text.find(stop)]
    with pytest.raises(UsageError, match="temperature"):
        model.generate("the", temperature=-1.0)
    with pytest.raises(UsageError, match="empty"):
        model.generate("")
    with pytest.raises(UsageError, match="token 999"):
        model.generate([999])


def test_a_stream_is_checked_before_it_is_read(model: Model) -> None:
    with pytest.raises(DoesNotFitError, match="256"):
        model.stream("ab" * 200)


def test_context(path: Path) -> None:
    with load(path) as default, load(path, ctx=0) as whole, load(path, ctx=40) as small:
        assert (default.ctx, whole.ctx, small.ctx) == (256, 256, 40)
        assert len(small.generate("ab", temperature=0).tokens) <= 39
        assert small.engine.cache_bytes() <= default.engine.cache_bytes() + (1 << 20)
    with pytest.raises(DoesNotFitError, match=r"300.*256"):
        load(path, ctx=300)
    with pytest.raises(UsageError):
        load(path, ctx=-1)


def test_the_default_context_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_module, "DEFAULT_CTX", 100)
    with load(path) as bounded, load(path, ctx=0) as whole:
        assert (bounded.ctx, whole.ctx) == (100, 256)


def test_chat_is_what_openai_answers(model: Model) -> None:
    assert model.render(HELLO) == RENDERED
    assert model.prompt(HELLO) == model.tokenize(RENDERED)
    plain = model.generate(RENDERED, max_tokens=6, temperature=0)
    got = model.chat(HELLO, max_tokens=6, temperature=0, logprobs=1)
    assert isinstance(got, ChatCompletion)
    answer = json.loads(json.dumps(got.to_dict()))
    assert answer["object"] == "chat.completion"
    choice = answer["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": plain.text}
    assert (choice["index"], choice["finish_reason"]) == (0, "length")
    content = choice["logprobs"]["content"]
    assert len(content) == 6 and content[0]["top_logprobs"][0]["token"] == content[0]["token"]
    usage = answer["usage"]
    assert usage["prompt_tokens"] == plain.stats.prompt_tokens
    assert (usage["completion_tokens"], usage["total_tokens"]) == (6, usage["prompt_tokens"] + 6)


def test_streamed_chat(model: Model) -> None:
    plain = model.generate(RENDERED, max_tokens=6, temperature=0)
    chunks = [c.to_dict() for c in model.chat(HELLO, stream=True, max_tokens=6, temperature=0)]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert deltas[-1] == {}
    assert "".join(delta.get("content", "") for delta in deltas) == plain.text
    assert [c["choices"][0]["finish_reason"] for c in chunks][-2:] == [None, "length"]
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}


def test_a_chat_goes_on_in_the_cache(path: Path) -> None:
    """The answers with the cache of earlier turns are those without."""
    talk: list[dict[str, str]] = []
    with load(path, threads=1) as kept, load(path, threads=1) as anew:
        for turn in range(3):
            talk.append({"role": "user", "content": f"turn {turn}"})
            first = kept.chat(talk, max_tokens=8, seed=turn)
            anew.forget()
            second = anew.chat(talk, max_tokens=8, seed=turn)
            assert first.choices == second.choices
            cached = first.usage.prompt_tokens_details.cached_tokens
            assert second.usage.prompt_tokens_details.cached_tokens == 0
            assert turn == 0 or cached >= len(kept.prompt(talk[:-2]))
            talk.append({"role": "assistant", "content": first.choices[0].message.content})


def test_bos_comes_once(tmp_path: Path) -> None:
    keys = {
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": True,
        "tokenizer.chat_template": "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}",
    }
    with load(talking_model.write(tmp_path / "model.gguf", keys), threads=1) as model:
        assert model.tokenize("x") == [talking_model.BOS, ord("x")]  # no EOS: it goes on
        assert model.render(HELLO) == "<s>the hello</s>"
        assert model.prompt(HELLO) == [*model.tokenize("the hello"), talking_model.EOS]
        assert model.generate("", max_tokens=1).stats.prompt_tokens == 1


def test_without_a_template_there_is_no_chat(tmp_path: Path) -> None:
    path = talking_model.write(tmp_path / "model.gguf", {"tokenizer.chat_template": ""})
    with load(path, chat=True) as model:
        assert not model.has_template
        with pytest.raises(UnsupportedError, match="no chat template"):
            model.chat(HELLO)


def test_a_hostile_template_is_an_error(tmp_path: Path) -> None:
    path = talking_model.write(tmp_path / "m.gguf", {"tokenizer.chat_template": "{{ 'a'*10**10 }}"})
    with load(path, chat=True) as model, pytest.raises(TemplateError):
        model.chat(HELLO)


def test_the_models_own_settings(tmp_path: Path, model: Model) -> None:
    assert model.sampling == SamplerSettings()
    keys = {
        "general.sampling.temp": np.float32(0.5).item(),
        "general.sampling.top_k": -1,
        "general.sampling.penalty_repeat": 1.5,
        "general.sampling.top_p": Value(ValueType.FLOAT32, 0.25),
    }
    with load(talking_model.write(tmp_path / "model.gguf", keys)) as own:
        assert own.sampling == SamplerSettings(
            temperature=0.5, top_k=0, top_p=0.25, repeat_penalty=1.5
        )


@pytest.mark.parametrize(
    ("key", "value"),
    [("temp", float("nan")), ("temp", -1.0), ("top_k", float("inf")), ("top_p", "much"),
     ("min_p", 7), ("penalty_repeat", True)],
)  # fmt: skip
def test_settings_that_make_no_sense_are_the_files_fault(
    tmp_path: Path, key: str, value: float | str
) -> None:
    path = talking_model.write(tmp_path / "model.gguf", {f"general.sampling.{key}": value})
    with pytest.raises(InvalidFileError, match=f"general.sampling.{key}"):
        load(path)


def test_a_model_stands_for_its_path(model: Model, path: Path) -> None:
    assert Path(model) == path
    assert model.name == "Small Model"
    assert "Small Model" in repr(model)


def test_what_cannot_be_loaded(tmp_path: Path, path: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        load(tmp_path / "absent.gguf")
    with pytest.raises(InvalidFileError, match=r"config\.json"):
        load(tmp_path)
    with pytest.raises(UsageError, match="thread"):
        load(path, threads=0)
    (tmp_path / "broken.gguf").write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InvalidFileError):
        load(tmp_path / "broken.gguf")


def test_closing_ends_the_template_process(path: Path) -> None:
    with load(path, chat=True) as model:
        model.render(HELLO)
        assert model._template is not None and model._template._worker is not None
        process = model._template._worker._process
        assert process.poll() is None
    assert process.poll() is not None


def test_a_closed_model_answers_no_more(path: Path) -> None:
    model = load(path)
    model.close()
    model.close()
    for ask in (
        lambda: model.generate("Hi"),
        lambda: model.stream("Hi"),
        lambda: model.chat(HELLO),
    ):
        with pytest.raises(UsageError, match="the model is closed"):
            ask()
    assert model._template is None


def test_guesses_are_a_setting_that_changes_no_answer(path: Path) -> None:
    again = {"sampling": SamplerSettings(temperature=0, logit_bias={65: 1000.0}), "max_tokens": 50}
    with load(path, threads=1) as model, load(path, threads=1, draft_max=0) as plain:
        got, expected = model.generate("the", **again), plain.generate("the", **again)
    assert got.tokens == expected.tokens
    assert got.stats.drafted_tokens > expected.stats.drafted_tokens == 0
    with pytest.raises(UsageError, match="draft_max -1"):
        load(path, draft_max=-1)


def test_threads_that_generate_at_the_same_time(path: Path) -> None:
    prompts = ["the", "the cat", "x", "the cat and the other"]
    with load(path, threads=1) as model, load(path, threads=1) as alone:
        found: dict[str, str] = {}

        def work(prompt: str) -> None:
            found[prompt] = "".join(
                chunk.text for chunk in model.stream(prompt, max_tokens=60, seed=3)
            )

        threads = [threading.Thread(target=work, args=(prompt,)) for prompt in prompts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        for prompt in prompts:
            assert found[prompt] == alone.generate(prompt, max_tokens=60, seed=3).text
