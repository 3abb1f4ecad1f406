"""Tasks: what is asked is what lm-evaluation-harness asks, and scores are a plain calculation's."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import text_model
from task_records import RECORDS
from trit.engine import Rows
from trit.errors import InvalidFileError, UsageError
from trit.evaluate import _continuations
from trit.evaluate._continuations import Continuation, likelihoods
from trit.evaluate._opened import Opened
from trit.evaluate._task_items import TASKS, Question, find, load, locate
from trit.evaluate.tasks import ask, continuation, measured, read_files, shortened, tasks


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_model.write(tmp_path_factory.mktemp("models") / "model.gguf")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_model.write(tmp_path_factory.mktemp("models") / "other.gguf", seed=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for name, records in RECORDS.items():
        lines = [json.dumps(record) for record in records]
        (folder / f"{name}.jsonl").write_text("\n".join([*lines, ""]), encoding="utf-8")
    return folder


def slow(path: Path, questions: list[Question], most: int = 128) -> list[list[tuple[float, bool]]]:
    """Each pair on its own: all logits, ln p by numpy, tokens as the harness splits them."""
    found = []
    with Opened(path, most, 1) as opened:
        tokenizer = opened.tokenizer()
        for question in questions:
            answers = []
            for context, end in question.pairs:
                spaces = len(context) - len(context.rstrip())
                start = len(tokenizer.encode(context[: len(context) - spaces]))
                ids = tokenizer.encode(context + end)
                count = len(ids) - start
                ids = ids[-(most + 1) :]
                opened.engine.remove(0, 0)
                logits = opened.engine.forward(Rows.of(ids[:-1]), range(len(ids) - 1))
                exact = logits.astype(np.float64)
                log_p = exact - np.log(np.exp(exact).sum(axis=1, keepdims=True))
                at = range(len(ids) - count - 1, len(ids) - 1)
                answers.append(
                    (
                        sum(float(log_p[i, ids[i + 1]]) for i in at),
                        all(int(exact[i].argmax()) == ids[i + 1] for i in at),
                    )
                )
            found.append(answers)
    return found


def test_what_is_asked(data: Path) -> None:
    asked = {
        name: load(TASKS[name], data / f"{name}.jsonl").questions
        for name in RECORDS
    }  # fmt: skip
    swag = asked["hellaswag"][0]
    assert swag.pairs[0] == ("Baking bread: A woman weighs flour. She", " adds water. Then salt.")
    assert swag.choices[3] == "sleeps well." and [q.right for q in asked["hellaswag"]] == [2, 0]
    ice, wood = asked["arc_easy"]
    assert ice.pairs[1] == ("Question: What melts?\nAnswer:", " a stone") and ice.right == 0
    assert wood.pairs[0] == ("Question: What burns?\nAnswer:", " wood") and len(wood.pairs) == 3
    assert asked["piqa"][0].pairs[1] == ("Question: To dry a shirt\nAnswer:", " wet it")
    ann, tom = asked["winogrande"]
    assert ann.pairs == (
        ("Ann beat Bea since Ann", " trained more."),
        ("Ann beat Bea since Bea", " trained more."),
    )
    assert tom.pairs[1] == ("Al", " was late.") and (ann.right, tom.right) == (0, 1)
    assert asked["lambada_openai"][1].pairs == (("He said yes, and she said", " yes"),)


def test_prepared_forms(tmp_path: Path) -> None:
    def first(name: str, record: dict[str, Any]) -> Question:
        path = tmp_path / f"{name}.jsonl"
        path.write_text(json.dumps(record) + "\n", encoding="utf-8")
        return load(TASKS[name], path).questions[0]

    record = {"query": "Question: Why?\n", "choices": ["so", "no"], "gold": 1}
    for name in ("arc_easy", "arc_challenge", "piqa"):
        asked = first(name, record)
        assert asked.pairs[0] == ("Question: Why?\nAnswer:", " so") and asked.right == 1
    asked = first("winogrande", {"context_options": ["A", "B"], "continuation": "ran.", "gold": 0})
    assert asked.pairs == (("A", " ran."), ("B", " ran."))
    asked = first("lambada_openai", {"context": "He said", "continuation": "no"})
    assert asked.pairs == (("He said", " no"),)
    path = tmp_path / "hellaswag.txt"
    path.write_text("Roof: he\n3\nis.\nwas.\nwill be.\nruns.\n" * 2, encoding="utf-8")
    file = load(TASKS["hellaswag"], path, 1)
    assert file.questions[0].pairs[3] == ("Roof: he", " runs.") and file.total == 2


@pytest.mark.parametrize("name", list(RECORDS))
def test_scores_against_a_slow_calculation(name: str, model: Path, data: Path) -> None:
    (file,) = read_files([name], data / f"{name}.jsonl", None)
    expected = slow(model, list(file.questions))
    got = ask(model, [file], 2)
    log_p = [np.array([value for value, _ in each]) for each in expected]
    sizes = [np.array([len(choice) for choice in q.choices]) for q in file.questions]
    rights = [q.right for q in file.questions]
    values = got.values[0]
    if name == "lambada_openai":
        noise = 40 * 8 * float(np.finfo(np.float32).eps) * 100
        assert values["perplexity"] == pytest.approx([-float(v[0]) for v in log_p], abs=noise)
        assert values["acc"].tolist() == [float(each[0][1]) for each in expected]
        return
    pairs = list(zip(log_p, sizes, rights, strict=True))
    assert values["acc"].tolist() == [float(v.argmax() == r) for v, _, r in pairs]
    if "acc_norm" in values:
        assert values["acc_norm"].tolist() == [float((v / s).argmax() == r) for v, s, r in pairs]


def some_texts() -> list[list[Continuation]]:
    """Items that share much, little and nothing, of one text and of several, scored in part."""
    random = np.random.default_rng(3)

    def text(n: int) -> list[int]:
        return [int(x) for x in random.integers(2, 258, n)]

    common = text(20)
    items = [
        [Continuation(common + text(n), 20) for n in (1, 4, 1)],
        [Continuation(common + text(5), 22), Continuation(common + text(3), 21)],
        [Continuation(text(9), 4)],
        [Continuation(text(7), 1), Continuation(text(8), 7)],  # nothing in common
        [Continuation([*common, 5, 6], 21), Continuation([*common, 5, 6], 21)],
        [Continuation(text(2), 1)],
    ]
    return items * 3


@pytest.mark.parametrize("first", [0, 1000])
def test_continuations_of_every_shape(
    first: int, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = some_texts()
    seen: list[int] = []
    with Opened(model, 64, 2) as opened:
        engine = opened.engine
        got = likelihoods(engine, items, first=first)
        assert engine.cache_pages() == 0  # nothing is left behind
        monkeypatch.setattr(_continuations, "GROUP_TOKENS", 60)
        monkeypatch.setattr(_continuations, "SLICE_ROWS", 5)
        again = likelihoods(engine, items, on_progress=seen.append, first=first)
        for item, each, same in zip(items, got, again, strict=True):
            assert (each.log_p == same.log_p).all() and (each.greedy == same.greedy).all()
            for text, value, greedy in zip(item, each.log_p, each.greedy, strict=True):
                logits = engine.forward(Rows.of(text.tokens), range(len(text.tokens)))
                engine.remove(0, 0)
                exact = logits.astype(np.float64)
                log_p = exact - np.log(np.exp(exact).sum(axis=1, keepdims=True))
                at = range(text.start, len(text.tokens))
                noise = 40 * len(at) * float(np.finfo(np.float32).eps) * 20
                expected = sum(log_p[i - 1, text.tokens[i]] for i in at)
                assert value == pytest.approx(expected, abs=noise)
                assert greedy == all(exact[i - 1].argmax() == text.tokens[i] for i in at)
    assert seen[-1] == len(items) and len(seen) > 3


def test_what_is_greedy(model: Path) -> None:
    with Opened(model, 64, 1) as opened:
        tokens = [5, 6, 7]
        for _ in range(4):
            logits = opened.engine.forward(Rows.of(tokens))
            opened.engine.remove(0, 0)
            tokens.append(int(logits[0].argmax()))
        wrong = [*tokens[:-1], (tokens[-1] + 1) % 250]
        (found,) = likelihoods(opened.engine, [[Continuation(t, 3) for t in (tokens, wrong)]])
    assert found.greedy.tolist() == [True, False] and found.log_p[0] > found.log_p[1]


def test_where_the_scored_part_begins() -> None:
    def encode(text: str) -> list[int]:
        return [0, *text.encode()]

    assert continuation(encode, "ab", " c") == Continuation([0, *b"ab c"], 3)
    assert continuation(encode, "ab  ", "c") == Continuation([0, *b"ab  c"], 3)
    assert continuation(lambda text: [0], "ab", "c") == Continuation([0], 1)
    text = Continuation([1, 2, 3, 4, 5], 3)
    assert shortened(text, 4) == text
    assert shortened(text, 2) == Continuation([3, 4, 5], 1)


def test_contexts_that_are_too_long_are_cut_and_counted(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "lambada.jsonl"
    texts = ["a word and " * 30 + "end", "a word and an end"]
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    found = tasks(model, ["lambada"], tmp_path)
    assert (found.results[0].cut, found.results[0].questions) == (1, 2)
    (file,) = read_files(["lambada"], path, None)
    expected = [each[0][0] for each in slow(model, list(file.questions))]
    value = found.results[0].metrics[0].value.mean
    assert value == pytest.approx(float(np.exp(-np.mean(expected))), rel=1e-4)


def test_a_reference(model: Path, other: Path, data: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    found = tasks(
        other, ["arc_easy", "lambada"], data, model, on_progress=lambda *x: seen.append(x)
    )
    alone, base = (tasks(path, ["arc_easy", "lambada"], data) for path in (other, model))
    for result, own, theirs in zip(found.results, alone.results, base.results, strict=True):
        for metric, mine, its in zip(result.metrics, own.metrics, theirs.metrics, strict=True):
            assert metric.value == mine.value and metric.reference == its.value
            assert metric.change is not None and mine.change is None
            assert metric.change.low <= metric.change.value <= metric.change.high
            difference = metric.value.mean - its.value.mean
            if metric.name == "perplexity":
                assert metric.change.value == pytest.approx(metric.value.mean / its.value.mean)
            else:
                assert metric.change.value == pytest.approx(difference)
    assert seen[0] == ("arc_easy, other.gguf", 0, 2) and seen[-1][1:] == (2, 2)
    answer = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert answer["tasks"][1]["metrics"]["perplexity"]["change_interval"][0] > 0
    assert "reference" not in alone.to_dict()["tasks"][0]["metrics"]["acc"]


def test_standard_errors(data: Path, model: Path) -> None:
    (file,) = read_files(["arc_easy"], data, None)
    found = ask(model, [file]).values[0]
    acc = tasks(model, ["arc_easy"], data).results[0].metrics[0]
    assert acc.value.mean == found["acc"].mean()
    assert acc.value.stderr == pytest.approx(found["acc"].std(ddof=1) / np.sqrt(2))
    scores = [_continuations.Likelihoods(np.array([-4.0, -5.0]), np.array([False, False]))]
    question = Question((("x", " ab"), ("x", " abcdef")), 0, ("ab", "abcdef"))
    file = file.__class__(file.task, "", "", 1, (question,))
    values = measured(file, scores)
    assert (values["acc"][0], values["acc_norm"][0]) == (1.0, 0.0)  # −4/2 against −5/6


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 1: expected a record of piqa: "),
        ('{"goal": "a", "sol1": "b", "sol2": "c"}', "none with the field 'label'"),
        ('{"goal": "a", "sol1": "b", "sol2": "", "label": 0}', "a choice is empty"),
        ('{"goal": "a", "sol1": "b", "sol2": "c", "label": 2}', "the right one is not there"),
        ("[]", "expected a record of piqa"),
        ("\n", "expected records of piqa, got none"),
    ],
)
def test_bad_records(line: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "piqa.jsonl"
    path.write_text(line, encoding="utf-8")
    with pytest.raises(InvalidFileError, match=r"piqa\.jsonl") as raised:
        load(TASKS["piqa"], path)
    assert says in str(raised.value)


def test_files_are_found_by_name(tmp_path: Path) -> None:
    task = TASKS["arc_easy"]
    with pytest.raises(UsageError, match=r"got none\. trit downloads no task data"):
        locate(task, tmp_path)
    (tmp_path / "ARC-Easy-Test.jsonl").touch()
    assert locate(task, tmp_path).name == "ARC-Easy-Test.jsonl"
    (tmp_path / "arc_easy_dev.jsonl").touch()
    with pytest.raises(UsageError, match=r"got ARC-Easy-Test\.jsonl, arc_easy_dev\.jsonl"):
        locate(task, tmp_path)
    (tmp_path / "arc_easy.jsonl").touch()
    assert locate(task, tmp_path).name == "arc_easy.jsonl"
    (tmp_path / "lambada_test.jsonl").touch()
    assert locate(TASKS["lambada_openai"], tmp_path).name == "lambada_test.jsonl"
    with pytest.raises(InvalidFileError, match=r"absent.jsonl: expected a file of JSON lines"):
        load(task, tmp_path / "absent.jsonl")
    with pytest.raises(UsageError, match="'boolq' is none of the tasks"):
        find(["piqa", "boolq"])
    assert [each.name for each in find(["lambada", "lambada_openai"])] == ["lambada_openai"]
