"""Facts: the shipped items are what they should be, and scores those of a plain calculation."""

import dataclasses
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import text_model
from trit.engine import Rows
from trit.errors import TritError
from trit.evaluate import _continuations
from trit.evaluate._continuations import Continuation
from trit.evaluate._fact_items import FILE, THIRDS, Fact, load
from trit.evaluate._fact_scores import ask, score
from trit.evaluate._opened import Opened
from trit.evaluate.recall import CTX, Answers, answers, groups, rare_first, recall

FACTS = load()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_model.write(tmp_path_factory.mktemp("models") / "model.gguf")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_model.write(tmp_path_factory.mktemp("models") / "other.gguf", seed=1)


def some() -> list[Fact]:
    """Of every category, of every length."""
    return [*FACTS.items[::23], max(FACTS.items, key=lambda item: len(item.prompt))]


def slow(path: Path, items: list[Fact]) -> list[list[float]]:
    """ln p of each choice, one text after the other, from the first token after the prompt's."""
    found = []
    with Opened(path, CTX, 1) as opened:
        tokenizer = opened.tokenizer()
        for item in items:
            sums = []
            start = len(tokenizer.encode(item.prompt))
            for choice in item.choices:
                ids = tokenizer.encode(f"{item.prompt} {choice}")
                opened.engine.remove(0, 0)
                logits = opened.engine.forward(Rows.of(ids), range(len(ids))).astype(np.float64)
                log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
                sums.append(sum(float(log_p[i - 1, ids[i]]) for i in range(start, len(ids))))
            found.append(sums)
    return found


def test_the_file_of_facts() -> None:
    counts = Counter(item.category for item in FACTS.items)
    assert len(counts) == 5 and min(counts.values()) >= 100 and len(FACTS.items) >= 500
    assert counts["arithmetic"] <= len(FACTS.items) / 5
    assert FACTS.corpus == "wordfreq 3.1.1 (en, large list)"
    assert FILE.stat().st_size < 150_000
    assert len({item.prompt for item in FACTS.items}) == len(FACTS.items)


@pytest.mark.parametrize("category", sorted({item.category for item in FACTS.items}))
def test_each_fact(category: str) -> None:
    for item in FACTS.items:
        if item.category != category:
            continue
        assert len(set(item.choices)) == len(item.choices) >= 4, item
        assert all(c.strip() == c != "" for c in (item.prompt, *item.choices)), item
        assert item.count >= 0 and item.word, item
        for miss in item.misses:
            assert not miss.startswith(item.answer) and not item.answer.startswith(miss), item
            assert miss.isdigit() == item.answer.isdigit(), item
            if item.answer.isdigit():
                assert len(miss) == len(item.answer), item


def test_arithmetic_is_right() -> None:
    signs = {"times": "*", "plus": "+", "minus": "-"}
    for item in FACTS.items:
        if item.category == "arithmetic":
            a, word, b, _ = item.prompt.split()
            assert eval(f"{int(a)} {signs[word]} {int(b)}") == int(item.answer), item.prompt


def test_thirds_are_of_each_category() -> None:
    for category in {item.category for item in FACTS.items}:
        items = [item for item in FACTS.items if item.category == category]
        sizes = Counter(item.third for item in items)
        assert max(sizes.values()) - min(sizes.values()) <= 1
        highest = [max(i.count for i in items if i.third == third) for third in THIRDS]
        lowest = [min(i.count for i in items if i.third == third) for third in THIRDS]
        assert highest[0] <= lowest[1] <= highest[1] <= lowest[2]


def test_scores_against_a_slow_calculation(model: Path) -> None:
    items = some()
    expected = slow(model, items)
    with Opened(model, CTX, 2) as opened:
        got = score(opened, items)
        assert opened.engine.cache_pages() == 0  # nothing is left behind
    noise = 40 * 8 * float(np.finfo(np.float32).eps) * max(-min(sums) for sums in expected)
    for sums, values in zip(expected, got, strict=True):
        assert values == pytest.approx(sums, abs=noise)
    assert len({round(v, 6) for sums in expected for v in sums}) > len(items)


def test_groups_and_slices_change_no_score(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items, seen = some(), list[int]()
    with Opened(model, CTX, 2) as opened:
        expected = score(opened, items)
        monkeypatch.setattr(_continuations, "GROUP_TOKENS", 300)
        monkeypatch.setattr(_continuations, "SLICE_ROWS", 7)
        got = score(opened, items, seen.append)
    assert all((a == b).all() for a, b in zip(expected, got, strict=True))
    assert seen == sorted(set(seen)) and seen[-1] == len(items) > len(seen) > 3


def test_a_choice_begins_where_the_prompt_ends() -> None:
    def starts(prompt: list[int], texts: list[list[int]]) -> set[int]:
        found = ask(prompt, texts)
        assert found == [Continuation(text, found[0].start) for text in texts]
        return {each.start for each in found}

    assert starts([1, 2], [[1, 2, 3, 4], [1, 2, 3]]) == {2}
    assert starts([1, 2], [[1, 2, 3], [1, 7, 3]]) == {1}  # joined at the seam
    assert starts([1, 2, 3], [[1, 2], [1, 2, 3]]) == {1}  # none is empty
    assert starts([1], [[1, 2, 3], [7, 3]]) == {1}  # joined, and no BOS: nothing is before it


def test_answers() -> None:
    item = dataclasses.replace(FACTS.items[0], answer="ab", misses=("abcdefg", "xy", "z"))
    got = answers([item, item], [np.array([-3.0, -4.0, -5.0, -6.0]), np.array([-3.0, -2, -9, -9])])
    assert got.margin.tolist() == [1.0, -1.0]
    assert got.right.tolist() == [True, False]
    assert got.right_by_byte.tolist() == [False, False]  # −3/3 against −4/8


def test_a_reference(model: Path, other: Path) -> None:
    got = recall(other, model)
    alone, base = recall(other), recall(model)
    everything = got.groups[0]
    assert everything.items == len(FACTS.items) and everything.name == "all"
    assert everything.right == alone.groups[0].right
    assert everything.reference_right == base.groups[0].right
    assert everything.change is not None and everything.lost is not None
    assert everything.won is not None
    moved = (everything.won - everything.lost) / everything.items
    assert everything.change.value == pytest.approx(moved)
    assert everything.right.value - base.groups[0].right.value == pytest.approx(moved)
    assert everything.change.low < moved < everything.change.high
    assert everything.margin_change is not None
    assert everything.margin_change.value == pytest.approx(
        alone.groups[0].margin.value - base.groups[0].margin.value
    )
    assert len(got.forgotten) == everything.lost > 0
    assert [f.count for f in got.forgotten] == sorted(f.count for f in got.forgotten)
    names = [group.name for group in got.groups]
    assert names == ["all", *dict.fromkeys(i.category for i in FACTS.items), *THIRDS]
    assert sum(group.items for group in got.groups[-3:]) == everything.items
    answer = json.loads(json.dumps(got.to_dict(), allow_nan=False))
    assert len(answer["forgotten"]) == everything.lost
    assert answer["groups"][0]["change_interval"] == [everything.change.low, everything.change.high]
    assert "rare_minus_frequent" not in alone.to_dict() and "change" not in alone.to_dict()


def test_nothing_is_forgotten_by_the_reference_itself(model: Path) -> None:
    got = recall(model, model)
    assert got.forgotten == () and got.rare_first is not None
    for value in got.rare_first:
        assert value.value == 0 and not value.shown
    change = got.groups[0].change
    assert change is not None and change.value == 0 and change.low < 0 < change.high


def test_rare_facts_that_go_first_are_seen() -> None:
    items = FACTS.items
    rare = np.array([item.third == "rare" for item in items])
    base = Answers(np.ones(len(items)), np.ones(len(items), bool), np.ones(len(items), bool))
    margin = np.where(rare & (np.arange(len(items)) % 4 == 0), -1.0, 1.0)
    ours = Answers(margin, margin > 0, margin > 0)
    right, shift = rare_first(items, ours, base)
    lost = int((margin < 0).sum())
    assert right.value == pytest.approx(-lost / rare.sum()) and right.high < 0
    assert shift.value == pytest.approx(-2 * lost / rare.sum()) and shift.high < 0
    group = {group.name: group for group in groups(items, ours, base)}
    assert (group["rare"].lost, group["frequent"].lost, group["rare"].won) == (lost, 0, 0)


def test_another_vocabulary_can_be_the_reference(model: Path, tmp_path: Path) -> None:
    no_bos = text_model.write(tmp_path / "no-bos.gguf", add_bos=False)
    got = recall(no_bos, model)
    assert got.groups[0].margin != got.groups[0].reference_margin
    plain = slow(no_bos, some()[:4])
    with Opened(no_bos, CTX, 1) as opened:
        for sums, values in zip(plain, score(opened, some()[:4]), strict=True):
            assert values == pytest.approx(sums, abs=1e-3)


def test_weights_that_are_not_numbers(model: Path, tmp_path: Path) -> None:
    import small_model
    from trit.files import checkpoint

    weights = small_model.arrays()
    weights["token_embd.weight"] = np.ones((258, small_model.EMBED), dtype=np.float32)
    weights["blk.1.ffn_norm.weight"][3] = np.nan
    with checkpoint.open(model) as file:
        keys = {key: value for key, value in file.values.items() if key.startswith("tokenizer.")}
    broken = small_model.write(tmp_path / "broken.gguf", weights, extra=keys)
    with pytest.raises(TritError, match=r"broken.gguf: its logits are not numbers"):
        recall(broken)
