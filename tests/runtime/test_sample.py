"""The sampler: against a slow twin and llama.cpp's chain, keyed by (seed, position)."""

import ctypes
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from trit import _core
from trit.errors import TritError, UsageError
from trit.runtime.sample import Sampler, SamplerSettings, log_probabilities

VOCAB = 3000
CHAINS: list[dict[str, Any]] = [
    {},
    {"top_k": 0},
    {"top_k": 1},
    {"top_k": VOCAB + 5},
    {"top_k": 0, "min_p": 0},
    {"top_k": 0, "top_p": 1, "min_p": 0},
    {"top_k": 0, "top_p": 1},
    {"top_k": 7, "top_p": 0.3, "min_p": 0.5},
    {"top_p": 0},
    {"min_p": 1},
    {"temperature": 3, "top_k": 2000, "top_p": 0.999, "min_p": 1e-6},
    {"repeat_penalty": 1.3, "top_k": 100},
    {"presence_penalty": 0.7, "frequency_penalty": 0.4},
    {"repeat_penalty": 1.2, "penalty_last_n": 5, "frequency_penalty": 1.0},
    {"repeat_penalty": 2, "penalty_last_n": -1},
    {"logit_bias": {3: 9.0, 5: -math.inf}, "repeat_penalty": 1.1},
]
ACCEPTED = [3, 5, 5, 7, 11, 3, 2999, 5, 8, 8, 8, 1]


def logits(seed: int, spread: float = 3.0, size: int = VOCAB) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).standard_normal(size) * spread).astype(np.float32)


def sampler(vocab: int = VOCAB, **settings: Any) -> Sampler:
    return Sampler(SamplerSettings(**settings), vocab)


def slow_distribution(values: NDArray[np.float32], s: SamplerSettings) -> dict[int, float]:
    """The chain in plain Python, over every token, sorted after each step."""
    scores = {id: float(value) for id, value in enumerate(values)}
    for id, bias in s.logit_bias.items():
        scores[id] += bias
    last = s.penalty_last_n if s.penalty_last_n >= 0 else len(ACCEPTED)
    recent = ACCEPTED[len(ACCEPTED) - min(last, len(ACCEPTED)) :]
    for id in set(recent):
        up = scores[id] > 0
        scores[id] = scores[id] / s.repeat_penalty if up else scores[id] * s.repeat_penalty
        scores[id] -= s.presence_penalty + recent.count(id) * s.frequency_penalty
    order = sorted(scores, key=lambda id: (-scores[id], id))[: s.top_k or None]
    top = scores[order[0]]
    total = sum(math.exp(scores[id] - top) for id in order)
    reached, kept = 0.0, []
    for id in order:
        kept.append(id)
        reached += math.exp(scores[id] - top) / total
        if s.top_p < 1 and reached >= s.top_p:
            break
    if s.min_p:
        kept = [id for id in kept if id == order[0] or scores[id] >= top + math.log(s.min_p)]
    weights = {id: math.exp((scores[id] - top) / s.temperature) for id in kept}
    return {id: weight / sum(weights.values()) for id, weight in weights.items()}


def tolerance(values: NDArray[np.float32], s: SamplerSettings) -> float:
    """How far float32 may take a probability exp((x - top) / T) / Σ, relative to its size.

    On their way x and top are rounded ten times: three settings become float32, a bias is added, a
    penalty scales, two are multiplied out and subtracted, llama.cpp divides by T. Each time that is
    up to 2^-24 of the largest number there is. Both of x and top count, and again in the sum.
    """
    biases = [abs(bias) for bias in s.logit_bias.values() if math.isfinite(bias)]
    largest = (float(np.abs(values).max()) + max(biases, default=0)) * max(s.repeat_penalty, 1)
    largest += s.presence_penalty + len(ACCEPTED) * s.frequency_penalty
    return 4 * 10 * 2.0**-24 * largest / min(s.temperature, 1)


@pytest.mark.parametrize("chain", CHAINS, ids=str)
@pytest.mark.parametrize("spread", [0.2, 3.0])
@pytest.mark.unsanitized
def test_distribution_equals_its_slow_twin(chain: dict[str, Any], spread: float) -> None:
    settings = SamplerSettings(**chain)
    for seed in range(3):
        fast = Sampler(settings, VOCAB)
        fast.accept_all(ACCEPTED)
        values = logits(seed, spread)
        ids, probabilities = fast.distribution(values)
        got = dict(zip(ids.tolist(), probabilities.tolist(), strict=True))
        expected = slow_distribution(values, settings)
        assert got.keys() == expected.keys()
        assert got == pytest.approx(expected, rel=tolerance(values, settings), abs=0)


@pytest.mark.parametrize("chain", CHAINS, ids=str)
def test_distribution_equals_llama_cpp(chain: dict[str, Any]) -> None:
    llama = pytest.importorskip("llama_cpp")
    settings = SamplerSettings(**chain)
    values = logits(4)
    fast = Sampler(settings, VOCAB)
    fast.accept_all(ACCEPTED)
    ids, probabilities = fast.distribution(values)
    penalties = [
        settings.penalty_last_n if settings.penalty_last_n >= 0 else len(ACCEPTED),
        settings.repeat_penalty,
        settings.frequency_penalty,
        settings.presence_penalty,
    ]
    if len(llama.llama_sampler_init_penalties.argtypes) == 5:  # since mid-2026
        penalties.insert(0, VOCAB)
    steps = [
        llama.llama_sampler_init_penalties(*penalties),
        llama.llama_sampler_init_top_k(settings.top_k),
        llama.llama_sampler_init_top_p(settings.top_p, 1),
        llama.llama_sampler_init_min_p(settings.min_p, 1),
        llama.llama_sampler_init_temp(settings.temperature),
    ]
    data = (llama.llama_token_data * VOCAB)()
    for id, value in enumerate(values.tolist()):
        data[id] = llama.llama_token_data(id, value + settings.logit_bias.get(id, 0.0), 0.0)
    pointer = ctypes.cast(data, llama.llama_token_data_p)
    array = llama.llama_token_data_array(pointer, VOCAB, -1, False)
    for step in steps:
        for token in ACCEPTED:
            llama.llama_sampler_accept(step, token)
        llama.llama_sampler_apply(step, ctypes.byref(array))
        llama.llama_sampler_free(step)
    theirs = {array.data[i].id: array.data[i].logit for i in range(array.size)}
    total = sum(math.exp(logit - max(theirs.values())) for logit in theirs.values())
    expected = {id: math.exp(v - max(theirs.values())) / total for id, v in theirs.items()}
    expected = {id: probability for id, probability in expected.items() if probability > 0}
    got = dict(zip(ids.tolist(), probabilities.tolist(), strict=True))
    got = {id: probability for id, probability in got.items() if probability > 0}
    assert got.keys() == expected.keys()
    assert got == pytest.approx(expected, rel=tolerance(values, settings), abs=0)


def awkward_logits(random: np.random.Generator) -> NDArray[np.float32]:
    """Of any size, with ties, signed zeros, forbidden tokens, and any spread."""
    size = int(random.choice([1, 2, 63, 64, 65, 130, 1000, 3000]))
    values = random.standard_normal(size) * random.choice([0.01, 1.0, 5.0, 50.0])
    if random.random() < 0.5:
        values = np.round(values)  # many are equal, some are -0
    values[random.random(size) < random.choice([0.0, 0.3])] = -np.inf
    values[random.integers(0, size)] = random.standard_normal()  # one that is finite
    return values.astype(np.float32)


def test_the_greatest_are_those_of_a_sort() -> None:
    random = np.random.default_rng(0)
    for _ in range(300):
        values = awkward_logits(random)
        count = int(random.integers(1, len(values) + 1))
        top, ids = _core.greatest(values, count)
        expected = sorted(range(len(values)), key=lambda id: (-values[id], id))[:count]
        assert ids.tolist() == expected
        assert top == values.max()


def test_a_draw_is_that_of_the_plain_chain() -> None:
    random = np.random.default_rng(1)
    chosen = set()
    for number in range(600):
        values = awkward_logits(random)
        settings = {
            "temperature": random.choice([0.0, 0.05, 0.8, 3.0]),
            "top_k": int(random.choice([1, 2, 5, 40, 1000, 4000])),
            "top_p": random.choice([0.0, 0.3, 0.95, 1.0]),
            "min_p": random.choice([0.0, 0.05, 0.5, 1.0]),
            "repeat_penalty": random.choice([1.0, 1.3]),
        }
        draw = sampler(len(values), seed=number, **settings)
        draw.accept_all(random.integers(0, len(values), 20).tolist())
        for position in range(4):
            token = draw.sample(values, position)
            assert token == draw._sample_plainly(values, position), (number, settings)
            chosen.add(token)
    assert len(chosen) > 200


@pytest.mark.parametrize("place", [0, 63, 64, 100, 129])
def test_a_logit_that_is_no_number_is_found_wherever_it_is(place: int) -> None:
    for sign in (math.nan, -math.nan):
        values = logits(6, size=130)
        values[place] = sign
        for settings in ({}, {"temperature": 0}, {"top_k": 0}):
            with pytest.raises(TritError, match="greatest is nan"):
                sampler(130, **settings).sample(values, 0)


def test_defaults_are_those_of_the_interface() -> None:
    s = SamplerSettings()
    assert (s.temperature, s.top_k, s.top_p, s.min_p, s.repeat_penalty) == (0.8, 40, 0.95, 0.05, 1)


def test_zero_temperature_takes_the_likeliest() -> None:
    values = logits(1)
    assert sampler(temperature=0).sample(values, 0) == int(np.argmax(values))
    values[[10, 20]] = 50
    assert sampler(temperature=0).sample(values, 0) == 10, "of equals the first"
    forbidding = sampler(temperature=0, logit_bias={10: -math.inf})
    assert forbidding.sample(values, 0) == 20


def test_draws_depend_on_seed_and_position_alone() -> None:
    values = logits(2, 0.5)
    one, two = sampler(seed=5, top_k=0), sampler(seed=5, top_k=0)
    forwards = [one.sample(values, position) for position in range(50)]
    assert forwards == [two.sample(values, position) for position in reversed(range(50))][::-1]
    assert forwards != [sampler(seed=6, top_k=0).sample(values, p) for p in range(50)]
    assert len(set(forwards)) > 30


def test_a_seed_is_chosen_where_none_is_given() -> None:
    one, two = sampler(), sampler()
    assert one.seed != two.seed
    again = sampler(seed=one.seed)
    values = logits(3)
    assert [one.sample(values, p) for p in range(9)] == [again.sample(values, p) for p in range(9)]


def test_frequencies_are_the_probabilities() -> None:
    values = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    draw = sampler(vocab=4, temperature=1, top_k=0, top_p=1, min_p=0, seed=0)
    counts = np.bincount([draw.sample(values, p) for p in range(4000)], minlength=4)
    # Four standard deviations of a binomial of 4000.
    for count, p in zip(counts / 4000, np.exp(values), strict=True):
        assert abs(count - p) < 4 * math.sqrt(p * (1 - p) / 4000)


def test_logits_are_left_as_they_are() -> None:
    values = logits(5)
    before = values.copy()
    penalizing = sampler(repeat_penalty=1.5, logit_bias={1: 2.0})
    penalizing.accept_all(ACCEPTED)
    penalizing.sample(values, 0)
    assert np.array_equal(values, before)


def test_equal_logits_are_ordered_by_id() -> None:
    ids, _ = sampler(top_k=5).distribution(np.zeros(VOCAB, np.float32))
    assert ids.tolist() == [0, 1, 2, 3, 4]
    mixed = np.zeros(VOCAB, np.float32)
    mixed[::2] = -0.0
    ids, _ = sampler(top_k=0, min_p=0).distribution(mixed)
    assert ids.tolist() == list(range(len(ids)))


@pytest.mark.parametrize("temperature", [0, 0.8])
def test_logits_that_are_not_finite_are_an_error(temperature: float) -> None:
    for bad in (math.nan, math.inf):
        values = logits(6)
        values[17] = bad
        with pytest.raises(TritError, match="not usable"):
            sampler(temperature=temperature).sample(values, 0)
    with pytest.raises(TritError, match="not usable"):
        sampler(temperature=temperature).sample(np.full(VOCAB, -np.inf, np.float32), 0)


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"top_k": -1},
        {"top_p": 1.1},
        {"min_p": -0.1},
        {"repeat_penalty": 0},
        {"presence_penalty": math.nan},
        {"frequency_penalty": math.inf},
        {"penalty_last_n": -2},
        {"seed": -1},
        {"seed": 2**64},
        {"logit_bias": {1: math.nan}},
        {"logit_bias": {VOCAB: 1.0}},
        {"logit_bias": {-1: 1.0}},
    ],
    ids=str,
)
def test_senseless_settings_are_a_usage_error(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(settings))):
        sampler(**settings)


def test_settings_of_a_generation_config() -> None:
    config = {"temperature": 0.6, "top_k": 20, "top_p": 0.9, "repetition_penalty": 1.05}
    s = SamplerSettings.from_generation_config(config | {"eos_token_id": [1, 2]})
    assert (s.temperature, s.top_k, s.top_p, s.min_p, s.repeat_penalty) == (
        0.6,
        20,
        0.9,
        0.05,
        1.05,
    )
    assert SamplerSettings.from_generation_config({}) == SamplerSettings()
    assert SamplerSettings.from_generation_config({"do_sample": False}).temperature == 0
    with pytest.raises(UsageError, match="top_p"):
        SamplerSettings.from_generation_config({"top_p": "high"})


def test_log_probabilities() -> None:
    values = logits(7)
    exact = values.astype(np.float64) - np.log(np.exp(values.astype(np.float64)).sum())
    chosen, best = log_probabilities(values, 42, 5)
    assert chosen == pytest.approx(exact[42], abs=1e-5)
    assert [id for id, _ in best] == np.argsort(-exact)[:5].tolist()
    assert [value for _, value in best] == pytest.approx(
        np.sort(exact)[::-1][:5].tolist(), abs=1e-5
    )
    assert log_probabilities(values, 42, 0)[1] == []
