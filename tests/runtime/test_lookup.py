"""Look-up: guesses that the text itself gives, in a length that pays, and never another answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest

import talking_model
from trit.runtime import lookup
from trit.runtime.generate import Generation, Request, generate
from trit.runtime.lookup import Costs, Lookup
from trit.runtime.model import Model, load
from trit.runtime.sample import SamplerSettings
from trit.runtime.scheduler import Scheduler

FREE = Costs()  # every step costs the same
FREE.seconds = lambda rows: 1.0  # type: ignore[method-assign]


def guess(tokens: Sequence[int], room: int = 8, costs: Costs = FREE) -> list[int]:
    return Lookup(tokens).guess(room, costs, 1, 1.0)[0]


def test_what_followed_the_longest_match_is_guessed() -> None:
    assert guess([1, 2, 3, 4, 5, 6, 7, 2, 3, 4], 3) == [5, 6, 7]
    assert guess([9, 2, 3, 8, 8, 1, 2, 3, 7, 7, 4, 2, 3, 6, 6, 1, 2, 3], 2) == [7, 7]
    assert guess([1, 2, 3, 1, 2, 4, 1, 2], 1) == [4], "of equals the last"


def test_a_guess_may_run_into_itself() -> None:
    assert guess([7, 1, 2, 1, 2], 5) == [1, 2, 1, 2, 1]
    assert guess([3, 3, 3], 4) == [3, 3, 3, 3]


@pytest.mark.parametrize("tokens", [[], [1], [1, 1], [1, 2], [1, 2, 3, 4], [5, 1, 2, 6, 2]])
def test_nothing_is_guessed_without_a_match(tokens: list[int]) -> None:
    assert guess(tokens) == []


def test_room_is_kept() -> None:
    tokens = [1, 2, 3] * 9
    for room in range(6):
        assert guess(tokens, room) == ([1, 2, 3] * 2)[:room]


def test_matches_are_found_while_the_text_grows() -> None:
    """Against a search of the whole text at every length."""
    tokens: list[int] = []
    growing = Lookup(tokens)
    random = np.random.default_rng(0)
    found = 0
    for _ in range(400):
        tokens.append(int(random.integers(0, 6)))
        expected, longest = 0, 0
        for place in range(2, len(tokens)):
            length = 0
            while length < min(place, lookup.LONGEST) and (
                tokens[place - 1 - length] == tokens[-1 - length]
            ):
                length += 1
            if length >= max(longest, lookup.LEAST):
                expected, longest = place, length
        got = growing.guess(1, FREE, 1, 1.0)[0]
        # Of a pair that is frequent only the last places are looked at.
        if longest == 0 or len(tokens) < lookup.PLACES:
            assert got == ([tokens[expected]] if longest else [])
        found += bool(got)
    assert found > 200


class Steps(Costs):
    """A step costs 1, and `more` for each row after the first."""

    def __init__(self, more: float) -> None:
        super().__init__()
        self.more = more

    def seconds(self, rows: int) -> float:
        return 1 + self.more * (rows - 1)


def test_the_length_follows_the_price_and_the_match() -> None:
    long, short = [*range(20), 99, *range(18)], [*range(20), 99, 50, 5, 6]
    assert len(guess(long, 15, Steps(0.1))) > len(guess(long, 15, Steps(0.5))) > 0
    assert len(guess(short, 15, Steps(0.1))) < len(guess(long, 15, Steps(0.1)))
    assert guess(long, 15, Steps(1.0)) == [], "a row costs a step: nothing to win"


def test_company_makes_rows_dearer() -> None:
    """What is guessed for one delays all: it has to win more than their tokens per second."""
    tokens = [*range(20), 99, *range(18)]
    alone = Lookup(tokens).guess(15, Steps(0.5), 1, 1.0)[0]
    among = Lookup(tokens).guess(15, Steps(0.5), 12, 12.0)[0]
    assert 0 < len(among) < len(alone)
    steep = Costs()
    for rows in range(1, 40):
        steep.note(rows, 1.0 if rows <= 8 else 1.0 + 0.5 * (rows - 8))
    assert len(Lookup(tokens).guess(15, steep, 1, 1.0)[0]) >= 7
    assert Lookup(tokens).guess(15, steep, 8, 8.0)[0] == []


def test_it_turns_itself_off_and_tries_again_rarely() -> None:
    tokens = [1, 2, 3, 4, 1, 2]
    one = Lookup(tokens)
    lengths = []
    for _ in range(2000):
        lengths.append(len(one.guess(8, Steps(0.2), 1, 1.0)[0]))
        one.learn(0)
    assert lengths[0] > 0
    late = lengths[1000:]
    assert 0 < sum(n > 0 for n in late) <= len(late) // lookup.RETRY + 1
    assert max(late) <= lookup.TRIED
    for _ in range(40 * lookup.RETRY):  # and is on again once the text repeats itself
        one.learn(len(one.guess(8, Steps(0.2), 1, 1.0)[0]))
    assert len(one.guess(8, Steps(0.2), 1, 1.0)[0]) > lookup.TRIED


def test_costs_are_the_least_of_what_was_measured_lately() -> None:
    costs = Costs()
    assert costs.seconds(4) / costs.seconds(1) == pytest.approx(1 + 3 * lookup.SLOPE)
    for seconds in (5.0, 2.0, 9.0):
        costs.note(1, seconds)
    assert costs.seconds(1) == 2.0
    assert costs.seconds(4) == pytest.approx(2 * (1 + 3 * lookup.SLOPE))
    costs.note(5, 4.0)
    assert [costs.seconds(rows) for rows in (1, 2, 3, 5)] == [2.0, 2.5, 3.0, 4.0]
    assert costs.seconds(9) == pytest.approx(4 * (1 + 8 * lookup.SLOPE) / (1 + 4 * lookup.SLOPE))
    for _ in range(2 * lookup.STALE):
        costs.note(1, 3.0)
    assert costs.seconds(1) == 3.0
    assert costs.seconds(5) == pytest.approx(3 * (1 + 4 * lookup.SLOPE)), "forgotten"


# Token by token what plain decoding gives.


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path = talking_model.write(tmp_path_factory.mktemp("models") / "model.gguf")
    with load(path, threads=1) as opened:
        yield opened


def prompts(model: Model) -> list[list[int]]:
    random = np.random.default_rng(0)
    texts = ["the cat and the other cat and the cat", "ab" * 20, "x", "one two, one two, one"]
    return [model.tokenize(text) for text in texts] + [
        random.integers(0, 8, random.integers(1, 200)).tolist() for _ in range(20)
    ]


GREEDY = SamplerSettings(temperature=0, seed=0)
COLD = SamplerSettings(temperature=0.3, top_k=4, seed=3)
WARM = SamplerSettings(temperature=1.0, top_k=20, seed=7)
KINDS = {
    "greedy": GREEDY,
    "cold": COLD,
    "warm": WARM,
    "penalties": replace(COLD, repeat_penalty=1.05, frequency_penalty=0.02, penalty_last_n=30),
    "greedy penalties": replace(GREEDY, frequency_penalty=0.05, penalty_last_n=-1),
    "bias": replace(COLD, logit_bias={65: 3.0, 66: -np.inf, talking_model.EOS: 1.0}),
}


def answers(
    model: Model, requests: list[Request], draft_max: int, together: int = 1
) -> list[Generation]:
    scheduler = Scheduler(model.engine, draft_max=draft_max, together=together)
    answers = generate(scheduler, model.tokenizer, requests)
    scheduler.forget()
    return answers


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_of_plain_decoding(
    model: Model, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Costs, "seconds", lambda self, rows: 1.0)  # every match is used
    requests = [
        Request(prompt, KINDS[kind], (None, 40, 7, 1)[number % 4], logprobs=1)
        for number, prompt in enumerate(prompts(model))
    ]
    plain = answers(model, requests, 0)
    for draft_max, together in ((1, 1), (5, 4), (15, 1)):
        drafted = answers(model, requests, draft_max, together)
        for one, other in zip(plain, drafted, strict=True):
            assert replace(other, stats=one.stats) == one
        tried = sum(one.stats.drafted_tokens for one in drafted)
        right = sum(one.stats.accepted_tokens for one in drafted)
        assert 0 < right < tried, "both accepted and refused"
    assert all(one.stats.drafted_tokens == 0 for one in plain)


def test_stop_strings_and_ends_within_a_draft(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Costs, "seconds", lambda self, rows: 1.0)
    requests = [Request(prompt, GREEDY, 60) for prompt in prompts(model)]
    free = answers(model, requests, 0)
    for cut in (33, 47):
        stops = [
            replace(request, stop=[one.text[cut : cut + 3] or "absent"])
            for request, one in zip(requests, free, strict=True)
        ]
        plain, drafted = answers(model, stops, 0), answers(model, stops, 15)
        assert [(a.text, a.tokens, a.finish_reason) for a in drafted] == [
            (a.text, a.tokens, a.finish_reason) for a in plain
        ]
        assert sum(one.stats.accepted_tokens for one in drafted) > 0


def test_a_draft_never_runs_over_the_context(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Costs, "seconds", lambda self, rows: 1.0)
    for count in range(model.ctx - 20, model.ctx + 1, 3):
        request = Request(([65, 66] * model.ctx)[:count], GREEDY)
        plain, drafted = (answers(model, [request], n)[0] for n in (0, 15))
        assert replace(drafted, stats=plain.stats) == plain
        assert len(plain.tokens) == model.ctx - count + 1


def test_steps_are_saved(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Costs, "seconds", lambda self, rows: 1.0)
    calls = []
    forward = model.engine.forward
    monkeypatch.setattr(
        model.engine, "forward", lambda *given: (calls.append(1), forward(*given))[1]
    )
    request = Request(model.tokenize("ab" * 20), replace(GREEDY, logit_bias={65: 1000.0}), 100)
    got = answers(model, [request], 9)[0]
    assert got.stats.accepted_tokens >= 85
    assert len(calls) == 1 + 99 - got.stats.accepted_tokens


def test_drafts_that_do_not_fit_into_the_cache_are_left_out(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trit.engine import PAGE, CacheFullError, Engine

    monkeypatch.setattr(Costs, "seconds", lambda self, rows: 1.0)
    engine = model.engine
    small = Engine(model.plan, engine._weights._tensors, 1, model.ctx, cache_positions=2 * PAGE)
    request = Request(([65, 66] * PAGE)[: PAGE + 10], replace(GREEDY, logit_bias={65: 1000.0}))
    fits = replace(request, max_tokens=PAGE - 9)  # its last token is not run
    got = generate(Scheduler(small, draft_max=15), model.tokenizer, [fits])[0]
    assert got.tokens == answers(model, [fits], 0)[0].tokens
    assert got.stats.accepted_tokens > 0
    with pytest.raises(CacheFullError):
        generate(Scheduler(small, draft_max=15), model.tokenizer, [request])
