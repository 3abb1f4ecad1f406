"""Accuracy on common tasks, from local files, by the definitions of lm-evaluation-harness.

    tasks("q4.gguf", ["hellaswag", "lambada"], Path("data"), reference="f16.gguf").to_dict()

A choice is scored by ln p of its tokens behind those of the context:

    acc         the right choice is the likeliest
    acc_norm    it is, by ln p per character; acc_bytes: per byte of UTF-8
    perplexity  of lambada's last words: e to the mean of −ln p, a word at a time; its acc: every
                token of the word is the likeliest one

Errors are standard errors of the mean over questions; that of a perplexity is to first order (the
harness draws samples). With a reference the same questions are compared one by one. Contexts that a
model cannot read whole are cut at their start, as the harness does, and counted.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trit import archs, zoo
from trit.errors import UsageError
from trit.evaluate import _interval
from trit.evaluate._continuations import Continuation, Likelihoods, likelihoods
from trit.evaluate._estimate import Estimate, estimate, exponential
from trit.evaluate._interval import Interval
from trit.evaluate._opened import Opened, encoder
from trit.evaluate._task_items import Question, TaskFile, find, load, locate
from trit.files import checkpoint
from trit.runtime.tokenizer import Tokenizer

__all__ = ["Metric", "TaskResult", "TaskScores", "tasks"]

PathLike = str | os.PathLike[str]
Doubles = NDArray[np.float64]
Values = dict[str, Doubles]
OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Metric:
    """A figure of a task; what compares is None without a reference.

    change   the model's less the reference's, with 95%; of a perplexity the ratio of the two
    """

    name: str
    value: Estimate
    reference: Estimate | None = None
    change: Interval | None = None


@dataclass(frozen=True)
class TaskResult:
    """One task: the file asked, how many of its questions, how many contexts were cut."""

    task: str
    file: str
    sha256: str
    questions: int
    total: int
    cut: int
    metrics: tuple[Metric, ...]


@dataclass(frozen=True)
class TaskScores:
    """What was measured, and all it depends on (threads change the speed alone)."""

    model: str
    reference: str | None
    isa: str
    threads: int
    seconds: float
    results: tuple[TaskResult, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; accuracies are fractions, intervals [low, high] of 95%."""
        return {
            "model": self.model,
            "reference": self.reference,
            "isa": self.isa,
            "threads": self.threads,
            "seconds": round(self.seconds, 3),
            "tasks": [_result_dict(result) for result in self.results],
        }


def tasks(
    model: PathLike,
    names: Sequence[str],
    data: PathLike,
    reference: PathLike | None = None,
    limit: int | None = None,
    threads: int | None = None,
    on_progress: OnProgress | None = None,
    cache_type: str = "f16",
) -> TaskScores:
    """Ask a model, and a reference where one is given, the questions of some tasks.

    model, reference   as for `evaluate`; their vocabularies may differ
    names         of the tasks: hellaswag, arc_easy, arc_challenge, piqa, winogrande, lambada
    data          a folder with a file of JSON lines for each, or the file of the only one
    limit         questions of each, the first ones; None: all
    on_progress   called with (what, questions done, of all)
    cache_type    what `model` keeps keys and values in; a reference keeps them in f16

    Errors as for `evaluate`; InvalidFileError for a file that has no records of its task.
    """
    files = read_files(names, data, limit)
    paths = [zoo.resolve(os.fspath(path)) for path in (model, reference) if path is not None]
    begun = time.perf_counter()
    asked = [
        ask(path, files, threads, on_progress, kept)
        for path, kept in zip(paths, (cache_type, "f16"), strict=False)
    ]
    ours, theirs = asked[0], asked[1] if len(asked) > 1 else None
    return TaskScores(
        model=os.fspath(paths[0]),
        reference=None if theirs is None else os.fspath(paths[1]),
        isa=ours.isa,
        threads=ours.threads,
        seconds=time.perf_counter() - begun,
        results=tuple(
            result(file, ours.values[i], ours.cut[i], None if theirs is None else theirs.values[i])
            for i, file in enumerate(files)
        ),
    )


def read_files(names: Sequence[str], data: PathLike, limit: int | None) -> list[TaskFile]:
    """The questions of each task. UsageError for unknown names, or several tasks of one file."""
    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit}: expected 1 question or more.")
    chosen, folder = find(names), Path(data)
    if len(chosen) > 1 and folder.is_file():
        raise UsageError(f"--task-data {data}: a file has one task; name the folder of all.")
    return [load(task, locate(task, folder), limit) for task in chosen]


@dataclass(frozen=True)
class Asked:
    """A model's answers: for each file the values of each metric, and contexts cut."""

    values: list[Values]
    cut: list[int]
    isa: str
    threads: int


def ask(
    path: PathLike,
    files: Sequence[TaskFile],
    threads: int | None = None,
    on_progress: OnProgress | None = None,
    cache_type: str = "f16",
) -> Asked:
    """A model's answers to the questions of some files."""
    with checkpoint.open(path) as header:
        encode = encoder(Tokenizer.from_gguf(header.metadata, name=header.path))
        most = archs.plan(header, context=1).context_length
    texts = [[_continuations(encode, each) for each in file.questions] for file in files]
    cut = [sum(_length(item) > most for item in items) for items in texts]
    fitting = [[[shortened(text, most) for text in item] for item in items] for items in texts]
    longest = max(_length(item) for items in fitting for item in items)
    values = []
    with Opened(path, longest, threads, cache_type) as opened:
        for file, items in zip(files, fitting, strict=True):
            what = f"{file.task.name}, {Path(path).name}"
            report = _counted(on_progress, what, len(items))
            values.append(measured(file, likelihoods(opened.engine, items, path, report)))
        return Asked(values, cut, opened.engine.isa, opened.engine.threads)


def _counted(on_progress: OnProgress | None, what: str, total: int) -> Callable[[int], None] | None:
    if on_progress is None:
        return None
    on_progress(what, 0, total)
    return lambda done: on_progress(what, done, total)


def _continuations(encode: Callable[[str], list[int]], question: Question) -> list[Continuation]:
    return [continuation(encode, *pair) for pair in question.pairs]


def continuation(encode: Callable[[str], list[int]], context: str, end: str) -> Continuation:
    """A context (not empty) and its end in tokens, as the harness splits them: spaces at the end of
    the context go with what follows, and what is scored begins where the context alone would end.
    """
    bare = context.rstrip() or context
    whole = encode(context + end)
    return Continuation(whole, max(1, min(len(encode(bare)), len(whole) - 1)))


def shortened(text: Continuation, most: int) -> Continuation:
    """With no more than `most` tokens read (the last is only scored), the first ones left out."""
    over = max(0, len(text.tokens) - most - 1)
    return Continuation(text.tokens[over:], max(1, text.start - over))


def _length(item: Sequence[Continuation]) -> int:
    """Tokens that are read of the longest: all but the last."""
    return max(len(text.tokens) - 1 for text in item)


def measured(file: TaskFile, found: Sequence[Likelihoods]) -> Values:
    """The value of each metric for each question: 0 or 1; of perplexity, −ln p of the word."""
    asked = list(zip(file.questions, found, strict=True))
    if "perplexity" in file.task.metrics:
        return {
            "perplexity": np.array([-float(each.log_p[0]) for _, each in asked]),
            "acc": np.array([float(each.greedy[0]) for _, each in asked]),
        }
    sizes: dict[str, Callable[[str], int]] = {
        "acc": lambda choice: 1,
        "acc_norm": len,
        "acc_bytes": lambda choice: len(choice.encode()),
    }
    return {
        name: np.array([_right(question, each, sizes[name]) for question, each in asked])
        for name in file.task.metrics
    }


def _right(question: Question, found: Likelihoods, size: Callable[[str], int]) -> float:
    sizes = np.array([size(choice) for choice in question.choices], dtype=np.float64)
    return float(int((found.log_p / sizes).argmax()) == question.right)


def result(file: TaskFile, ours: Values, cut: int, theirs: Values | None) -> TaskResult:
    """The figures of one task."""
    return TaskResult(
        task=file.task.name,
        file=file.path,
        sha256=file.sha256,
        questions=len(file.questions),
        total=file.total,
        cut=cut,
        metrics=tuple(
            _metric(name, ours[name], None if theirs is None else theirs[name])
            for name in file.task.metrics
        ),
    )


def _metric(name: str, ours: Doubles, theirs: Doubles | None) -> Metric:
    mean = exponential if name == "perplexity" else estimate
    if theirs is None:
        return Metric(name, mean(ours))
    if name == "perplexity":
        ratio = _interval.mean(ours - theirs)
        change = Interval(*(float(np.exp(x)) for x in (ratio.value, ratio.low, ratio.high)))
    else:
        lost, won = int((ours < theirs).sum()), int((ours > theirs).sum())
        change = _interval.change(lost, won, len(ours))
    return Metric(name, mean(ours), mean(theirs), change)


def _result_dict(result: TaskResult) -> dict[str, Any]:
    return {
        **{key: value for key, value in asdict(result).items() if key != "metrics"},
        "metrics": {metric.name: _metric_dict(metric) for metric in result.metrics},
    }


def _metric_dict(metric: Metric) -> dict[str, Any]:
    answer: dict[str, Any] = {"value": metric.value.mean, "stderr": metric.value.stderr}
    if metric.reference is not None and metric.change is not None:
        answer |= {
            "reference": metric.reference.mean,
            "reference_stderr": metric.reference.stderr,
            "change": metric.change.value,
            "change_interval": [metric.change.low, metric.change.high],
        }
    return answer
