"""Generation: greedy like a loop by hand, a batch like one by one, stops, limits, the cache."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import talking_model
from trit.engine import Engine, Rows
from trit.errors import DoesNotFitError, UsageError
from trit.runtime import generate as generation
from trit.runtime._generation_text import StopCutter
from trit.runtime.generate import Generation, PromptTooLongError, Request, join, stream
from trit.runtime.model import Model, load
from trit.runtime.sample import SamplerSettings
from trit.runtime.scheduler import Scheduler

GREEDY = SamplerSettings(temperature=0, seed=0)
WARM = SamplerSettings(temperature=1.5, top_k=0, top_p=1, min_p=0, seed=7)
PROMPTS = ["the", "a longer prompt than that", "x", "</s>", "the cat and the other cat"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path = talking_model.write(tmp_path_factory.mktemp("models") / "model.gguf")
    with load(path, threads=1) as opened:
        yield opened


@pytest.fixture
def fresh(model: Model) -> Scheduler:
    """A scheduler of the engine, with nothing in them that is known to hold."""
    return Scheduler(model.engine)


def answer(model: Model, scheduler: Scheduler, request: Request) -> Generation:
    return generation.generate(scheduler, model.tokenizer, [request])[0]


def by_hand(engine: Engine, prompt: list[int], count: int) -> list[int]:
    """The likeliest token, again and again, in a sequence of its own."""
    engine.remove(99)
    logits = engine.forward(Rows.of(prompt, 0, 99))[0]
    tokens: list[int] = []
    while len(tokens) < count:
        tokens.append(int(np.argmax(logits)))
        logits = engine.forward(Rows.of(tokens[-1:], len(prompt) + len(tokens) - 1, 99))[0]
    engine.remove(99)
    return tokens


def test_greedy_is_a_loop_over_the_engine(model: Model, fresh: Scheduler) -> None:
    for text in PROMPTS:
        prompt = model.tokenize(text)
        expected = by_hand(model.engine, prompt, 20)
        got = answer(model, fresh, Request(prompt, GREEDY, 20))
        assert list(got.tokens) == expected
        assert got.text == model.tokenizer.decode(expected)
        assert (got.finish_reason, got.stats.tokens, got.stats.passes) == ("length", 20, 19)


@pytest.mark.parametrize("rows", [1, 7])
def test_prefill_in_pieces_changes_nothing(model: Model, fresh: Scheduler, rows: int) -> None:
    request = Request(model.tokenize(PROMPTS[1] * 4), WARM, 12, logprobs=1)
    whole = answer(model, fresh, request)
    again = answer(model, Scheduler(model.engine, pass_rows=rows), request)
    assert (again.tokens, again.logprobs) == (whole.tokens, whole.logprobs)


@pytest.mark.parametrize("sampling", [GREEDY, WARM])
def test_a_batch_answers_as_one_by_one(model: Model, sampling: SamplerSettings) -> None:
    ids = [model.tokenize(text) for text in PROMPTS]
    requests = [Request(prompt, sampling, 5 + 3 * n, logprobs=2) for n, prompt in enumerate(ids)]
    few = Scheduler(model.engine, together=3)  # of five prompts: some have to wait
    batch = generation.generate(few, model.tokenizer, requests)
    for request, together in zip(requests, batch, strict=True):
        alone = answer(model, Scheduler(model.engine), request)
        assert replace(together, stats=alone.stats) == alone


def test_seeds(model: Model, fresh: Scheduler) -> None:
    request = Request(model.tokenize("the"), WARM, 16)
    first = answer(model, fresh, request)
    assert answer(model, fresh, request).tokens == first.tokens
    other = answer(model, fresh, replace(request, sampling=replace(WARM, seed=8)))
    assert other.tokens != first.tokens
    drawn = [replace(request, sampling=replace(WARM, seed=None))] * 2
    pair = generation.generate(fresh, model.tokenizer, drawn)
    assert pair[0].seed != pair[1].seed
    assert pair[0].tokens != pair[1].tokens
    repeated = answer(model, fresh, replace(request, sampling=replace(WARM, seed=pair[0].seed)))
    assert repeated.tokens == pair[0].tokens


def test_streamed_pieces_make_the_text(model: Model, fresh: Scheduler) -> None:
    request = Request(model.tokenize("the"), WARM, 40, logprobs=0)
    whole = answer(model, fresh, request)
    chunks = list(stream(fresh, model.tokenizer, [request]))
    assert len(chunks) == 40
    assert "".join(chunk.text for chunk in chunks) == whole.text
    assert [chunk.finish_reason for chunk in chunks] == [None] * 39 + ["length"]
    assert replace(join(chunks, request), stats=whole.stats) == whole


def test_a_stop_string_across_tokens(model: Model, fresh: Scheduler) -> None:
    request = Request(model.tokenize("the"), GREEDY, 20)
    free = answer(model, fresh, request)
    assert all(len(model.tokenizer.token_bytes(token)) == 1 for token in free.tokens)
    stop = free.text[5:8]
    chunks = list(stream(fresh, model.tokenizer, [replace(request, stop=["absent", stop])]))
    text = "".join(chunk.text for chunk in chunks)
    assert text == free.text[: free.text.find(stop)]
    assert chunks[-1].finish_reason == "stop"
    longer = replace(request, stop=[free.text + "no"])  # held back to the end, then given
    assert answer(model, fresh, longer).text == free.text


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.text("ab", max_size=4), max_size=8),
    st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
)
def test_stop_cutter_is_a_search_in_the_whole(pieces: list[str], stops: list[str]) -> None:
    cutter = StopCutter(stops)
    got = ""
    for piece in pieces:
        got += cutter.push(piece)
        if cutter.stopped:
            break
    got += cutter.finish()
    seen = ""  # the whole text, up to the piece that completes a stop string
    for piece in pieces:
        seen += piece
        if any(stop in seen for stop in stops):
            break
    places = [seen.find(stop) for stop in stops if stop in seen]
    assert got == (seen[: min(places)] if places else seen)
    assert cutter.stopped == bool(places)


def test_the_model_ends_its_answer(model: Model, fresh: Scheduler) -> None:
    ending = replace(GREEDY, logit_bias={talking_model.EOS: 1000.0})
    got = answer(model, fresh, Request(model.tokenize("the"), ending, 9, logprobs=1))
    assert (got.text, got.tokens, got.finish_reason, got.logprobs) == ("", (), "stop", ())
    assert got.stats.generation_tps is None


def test_an_answer_ends_with_the_context(model: Model, fresh: Scheduler) -> None:
    prompt = model.tokenize("ab" * 120)[:240]
    got = answer(model, fresh, Request(prompt, GREEDY))
    assert model.ctx == talking_model.CONTEXT
    assert got.finish_reason == "length"
    assert len(got.tokens) == model.ctx - len(prompt) + 1  # the last one need not be run
    full = answer(model, fresh, Request(model.tokenize("ab" * 128), GREEDY, 5))
    assert len(full.tokens) == 1


def test_a_prompt_that_does_not_fit(model: Model, fresh: Scheduler) -> None:
    prompt = model.tokenize("ab" * 200)
    with pytest.raises(PromptTooLongError, match=f"{len(prompt)} tokens.*256") as caught:
        next(stream(fresh, model.tokenizer, [Request(prompt, GREEDY)]))
    assert isinstance(caught.value, DoesNotFitError)
    assert (caught.value.n_prompt, caught.value.n_ctx) == (len(prompt), 256)
    mixed = [Request(model.tokenize("ok"), GREEDY, 2), Request(prompt, GREEDY, 2)]
    with pytest.raises(PromptTooLongError):
        generation.generate(fresh, model.tokenizer, mixed)


@pytest.mark.parametrize(
    "wrong",
    [{"prompt": []}, {"max_tokens": 0}, {"stop": ["x", ""]}, {"stop": "x"}, {"logprobs": -1}],
)
def test_requests_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Request(**{"prompt": [1], "sampling": GREEDY, **wrong})


def test_logprobs_are_of_the_plain_softmax(model: Model, fresh: Scheduler) -> None:
    prompt = model.tokenize("the")
    got = answer(model, fresh, Request(prompt, WARM, 3, logprobs=4))
    assert got.logprobs is not None and len(got.logprobs) == 3
    logits = model.engine.forward(Rows.of(prompt, 0, 99))[0].astype(np.float64)
    model.engine.remove(99)
    exact = logits - np.logaddexp.reduce(logits)
    first = got.logprobs[0]
    assert first.logprob == pytest.approx(exact[first.token], abs=1e-5)
    assert [token for token, _ in first.top] == np.argsort(-exact)[:4].tolist()
    assert [value for _, value in first.top] == pytest.approx(np.sort(exact)[:-5:-1], abs=1e-5)


def test_what_the_cache_holds_is_not_read_again(model: Model, fresh: Scheduler) -> None:
    prompt = model.tokenize("the beginning of a conversation")
    first = answer(model, fresh, Request(prompt, WARM, 10))
    assert first.stats.cached_tokens == 0
    second = [*prompt, *first.tokens, *model.tokenize("and on")]
    kept = answer(model, fresh, Request(second, WARM, 10, logprobs=3))
    assert kept.stats.cached_tokens == len(prompt) + 9  # the last token was never run
    anew = answer(model, Scheduler(model.engine), Request(second, WARM, 10, logprobs=3))
    assert anew.stats.cached_tokens == 0
    assert replace(kept, stats=anew.stats) == anew
    again = answer(model, fresh, Request(second, WARM, 10))
    assert again.stats.cached_tokens == len(second) - 1  # one is run for its logits
    assert again.tokens == anew.tokens
    fresh.forget()
    assert answer(model, fresh, Request(second, WARM, 10)).stats.cached_tokens == 0


def test_streams_at_the_same_time(model: Model, fresh: Scheduler) -> None:
    requests = [Request(model.tokenize(text), WARM, 12) for text in PROMPTS[:3]]
    streams = [stream(fresh, model.tokenizer, [request]) for request in requests]
    texts = [""] * 3
    for _ in range(12):
        for number, one in enumerate(streams):
            texts[number] += next(one).text
    for request, text in zip(requests, texts, strict=True):
        assert text == answer(model, Scheduler(model.engine), request).text


def test_a_stream_left_early_spoils_nothing(model: Model, fresh: Scheduler) -> None:
    request = Request(model.tokenize("the cat"), WARM, 12)
    expected = answer(model, Scheduler(model.engine), request)
    left = stream(fresh, model.tokenizer, [request])
    for _ in range(2):
        next(left)
    left.close()  # type: ignore[attr-defined]
    got = answer(model, fresh, request)
    assert got.stats.cached_tokens > 0
    assert got.tokens == expected.tokens


def test_an_interrupted_pass_spoils_nothing(
    model: Model, fresh: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C is heard after a pass: the cache then holds more than was noted."""
    request = Request(model.tokenize("the cat"), WARM, 12)
    expected = answer(model, Scheduler(model.engine), request)
    forward = model.engine.forward

    def interrupted(rows: Rows, outputs: Any = None) -> Any:
        forward(rows, outputs)
        raise KeyboardInterrupt

    under_way = stream(fresh, model.tokenizer, [request])
    for _ in range(2):
        next(under_way)
    with monkeypatch.context() as patch:
        patch.setattr(model.engine, "forward", interrupted)
        with pytest.raises(KeyboardInterrupt):
            next(under_way)
    assert answer(model, fresh, request).tokens == expected.tokens


def test_penalties_see_the_prompt_too(model: Model, fresh: Scheduler) -> None:
    prompt = model.tokenize("the")
    likeliest = by_hand(model.engine, prompt, 1)
    harsh = replace(GREEDY, presence_penalty=1000.0)
    seen = answer(model, fresh, Request([*likeliest, *prompt], harsh, 30))
    assert not {*likeliest, *prompt} & {*seen.tokens}
    assert len({*seen.tokens}) == len(seen.tokens) > 5
