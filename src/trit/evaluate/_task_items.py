"""The questions of the common tasks, as lm-evaluation-harness (0.4) asks them without examples.

A record is one line of JSON in the fields that the data set was published with, its authors' or
those of its copy on Hugging Face. Two prepared forms are read as well: {"query", "choices", "gold"}
for questions with answers, {"context", "continuation"} and {"context_options", "continuation",
"gold"} for endings. What is asked:

    hellaswag     R. Zellers et al. 2019: activity and context, four endings
    arc_easy, arc_challenge   P. Clark et al. 2018: "Question: …\\nAnswer:", the answers
    piqa          Y. Bisk et al. 2020: "Question: …\\nAnswer:", two solutions
    winogrande    K. Sakaguchi et al. 2020: the end of a sentence, after each of two names (partial
                  scoring: what is scored is the same words)
    lambada_openai   D. Paperno et al. 2016: the last word of a passage
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trit.errors import InvalidFileError, UsageError

Record = dict[str, Any]

ACCURACIES = ("acc", "acc_norm", "acc_bytes")


@dataclass(frozen=True)
class Question:
    """Pairs of (context, continuation), one right.

    choices   what lengths are counted of, for accuracies by character and by byte
    """

    pairs: tuple[tuple[str, str], ...]
    right: int
    choices: tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """One of the tasks: what a record asks, and what is measured."""

    name: str
    question: Callable[[Record], Question]
    metrics: tuple[str, ...]


@dataclass(frozen=True)
class TaskFile:
    """The questions of a file, the first `limit` of them; `total`: of the whole file."""

    task: Task
    path: str
    sha256: str
    total: int
    questions: tuple[Question, ...]


def _answers(context: str, choices: Sequence[str], right: int) -> Question:
    return Question(tuple((context, f" {each}") for each in choices), right, tuple(choices))


def _hellaswag(record: Record) -> Question:
    if "query" in record:
        return _answers(record["query"], record["choices"], int(record["gold"]))
    start = f"{record['activity_label']}: {record['ctx_a']} {record['ctx_b'].capitalize()}"
    endings = [_plain(each) for each in record["endings"]]
    return _answers(_plain(start), endings, int(record["label"]))


def _plain(text: str) -> str:
    """Without the marks that WikiHow's articles left in the set."""
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


def _asked(question: str) -> str:
    return f"Question: {question}\nAnswer:"


def _prepared(record: Record) -> Question:
    question = record["query"].removeprefix("Question: ").rstrip("\n")
    return _answers(_asked(question), record["choices"], int(record["gold"]))


def _arc(record: Record) -> Question:
    if "query" in record:
        return _prepared(record)
    question = record["question"]
    if isinstance(question, dict):  # as AI2 publishes it
        texts, labels = ([each[k] for each in question["choices"]] for k in ("text", "label"))
        question = question["stem"]
    else:
        texts, labels = (record["choices"][k] for k in ("text", "label"))
    return _answers(_asked(question), texts, labels.index(record["answerKey"]))


def _piqa(record: Record) -> Question:
    if "query" in record:
        return _prepared(record)
    choices = [record["sol1"], record["sol2"]]
    return _answers(_asked(record["goal"]), choices, int(record["label"]))


def _winogrande(record: Record) -> Question:
    if "context_options" in record:
        starts, end = record["context_options"], record["continuation"]
        right = int(record["gold"])
    else:
        before, _, end = record["sentence"].partition("_")
        starts = [before + record[name] for name in ("option1", "option2")]
        right = ("1", "2").index(str(record["answer"]))
    end = f" {end.strip()}"
    return Question(tuple((start, end) for start in starts), right, tuple(starts))


def _lambada(record: Record) -> Question:
    if "context" in record:
        context, word = record["context"], record["continuation"]
    else:
        context, _, word = record["text"].rpartition(" ")
    return _answers(context, [word], 0)


TASKS = {
    task.name: task
    for task in (
        Task("hellaswag", _hellaswag, ACCURACIES),
        Task("arc_easy", _arc, ACCURACIES),
        Task("arc_challenge", _arc, ACCURACIES),
        Task("piqa", _piqa, ACCURACIES),
        Task("winogrande", _winogrande, ("acc",)),
        Task("lambada_openai", _lambada, ("perplexity", "acc")),
    )
}
SHORT = {"lambada": "lambada_openai"}


def find(names: Sequence[str]) -> list[Task]:
    """Tasks by name; UsageError for one that is not there, or none."""
    unknown = [name for name in names if SHORT.get(name, name) not in TASKS]
    if unknown or not names:
        problem = f"{unknown[0]!r} is none of the tasks" if unknown else "no task"
        raise UsageError(f"--task: {problem}; expected some of {', '.join([*TASKS, *SHORT])}.")
    return [TASKS[name] for name in dict.fromkeys(SHORT.get(name, name) for name in names)]


def locate(task: Task, data: Path) -> Path:
    """The file of a task: `data` itself, or in that folder the one named after the task."""
    if not data.is_dir():
        return data
    known = [task.name, *(short for short, name in SHORT.items() if name == task.name)]
    files = sorted(path for path in data.iterdir() if path.suffix in (".jsonl", ".txt"))
    found = [path for path in files if path.stem.lower().replace("-", "_") in known] or [
        path for path in files if path.stem.lower().replace("-", "_").startswith(tuple(known))
    ]
    if len(found) == 1:
        return found[0]
    several = ", ".join(path.name for path in found) or "none"
    raise UsageError(
        f"--task-data {data}: expected one file named after {task.name}, such as "
        f"{task.name}.jsonl; got {several}. trit downloads no task data."
    )


def load(task: Task, path: Path, limit: int | None = None) -> TaskFile:
    """The questions of a file of JSON lines; hellaswag's .txt has six lines for each instead:
    context, number of the right ending, four endings (llama.cpp's form).

    InvalidFileError for a file that is not there, or a line that is no record of the task.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        problem = f"expected a file of JSON lines, got: {error.strerror}. Check the path."
        raise InvalidFileError(path, "", problem) from None
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        where = f"byte {error.start}"
        raise InvalidFileError(path, where, "expected UTF-8; convert the file first.") from None
    if task.name == "hellaswag" and path.suffix == ".txt":
        records = _six_lines(path, text)
        question: Callable[[Record], Question] = _hellaswag
    else:
        records = [(n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
        question = task.question
    made = tuple(_read(path, task, question, each) for each in records[:limit])
    if not made:
        raise InvalidFileError(path, "", f"expected records of {task.name}, got none.")
    return TaskFile(task, str(path), hashlib.sha256(raw).hexdigest(), len(records), made)


def _read(
    path: Path, task: Task, question: Callable[[Record], Question], line: tuple[int, str | Record]
) -> Question:
    number, content = line
    try:
        record = json.loads(content) if isinstance(content, str) else content
        found = question(record)
        if not (0 <= found.right < len(found.pairs)) or not all(
            start and end.strip() for start, end in found.pairs
        ):
            raise ValueError("a choice is empty, or the right one is not there")
    except KeyError as error:
        problem = f"expected a record of {task.name}, got none with the field {error}"
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        problem = f"expected a record of {task.name}: {error}"
    else:
        return found
    raise InvalidFileError(path, f"line {number}", f"{problem}. docs/tasks.md has the fields.")


def _six_lines(path: Path, text: str) -> list[tuple[int, str | Record]]:
    lines = text.splitlines()
    if len(lines) % 6:
        problem = f"expected six lines for each question, got {len(lines)} lines."
        raise InvalidFileError(path, "", problem)
    return [
        (i + 1, {"query": lines[i], "choices": lines[i + 2 : i + 6], "gold": lines[i + 1]})
        for i in range(0, len(lines), 6)
    ]
