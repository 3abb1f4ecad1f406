"""The adapter, and trit's own tasks, against lm-evaluation-harness; skipped where it is missing."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import talking_model
from task_records import RECORDS
from trit.evaluate.tasks import tasks

pytest.importorskip("lm_eval", reason="needs lm-evaluation-harness: pip install lm-eval")

from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model

from trit.engine import Rows
from trit.evaluate.harness import TritLM

CONFIGS = {
    "hellaswag": "hellaswag/hellaswag.yaml",
    "arc_easy": "arc/arc_easy.yaml",
    "piqa": "piqa/piqa.yaml",
    "winogrande": "winogrande/default.yaml",
    "lambada_openai": "lambada/lambada_openai.yaml",
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talking_model.write(tmp_path_factory.mktemp("models") / "model.gguf")


@pytest.fixture(scope="module")
def model(path: Path) -> TritLM:
    return TritLM(str(path), threads="1")


def ask(kind: str, *arguments: Any) -> list[Instance]:
    return [Instance(kind, {}, each, 0) for each in arguments]


def test_likelihoods(model: TritLM) -> None:
    assert get_model("trit") is TritLM
    pairs = [("one two", " three"), ("one two", " four"), ("", "five"), ("one ", "six")]
    answers = model.loglikelihood(ask("loglikelihood", *pairs))
    tokenizer, engine = model.model.tokenizer, model.model.engine
    for (context, end), (log_p, _) in zip(pairs, answers, strict=True):
        ids = tokenizer.encode(context + end, add_special=False)
        start = len(tokenizer.encode(context.rstrip(), add_special=False))
        if not context:
            ids, start = [talking_model.BOS, *ids], 1
        logits = engine.forward(Rows.of(ids, sequence=77), range(len(ids))).astype(np.float64)
        engine.remove(77)
        exact = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        expected = sum(exact[i - 1, ids[i]] for i in range(start, len(ids)))
        assert log_p == pytest.approx(expected, abs=1e-3)


def test_rolling_windows(model: TritLM) -> None:
    texts = ["short", "a text beyond the context of 256 tokens. " * 12]
    answers = model.loglikelihood_rolling(ask("loglikelihood_rolling", *((t,) for t in texts)))
    ids = model.model.tokenizer.encode(texts[0], add_special=False)
    parts = model.loglikelihood(ask("loglikelihood", ("", texts[0])))
    assert answers[0] == pytest.approx(parts[0][0]) and len(ids) > 2
    count = len(model.model.tokenizer.encode(texts[1], add_special=False))
    assert count > model.model.ctx and -12 * count < answers[1] < -count


def test_generation(model: TritLM) -> None:
    settings = {"until": ["\n"], "max_gen_toks": 8}
    answers = model.generate_until(
        ask("generate_until", ("one two", settings), ("x", settings), ("y" * 400, settings))
    )
    expected = model.model.generate("one two", max_tokens=8, temperature=0, stop=["\n"])
    assert answers[0] == expected.text and len(answers) == 3
    assert model.apply_chat_template([{"role": "user", "content": "Hi"}]).startswith("<|im_start|>")


def harness_config(task: str, folder: Path) -> dict[str, Any]:
    """The harness's own definition of a task, on records of ours, in the form of Hugging Face."""
    import lm_eval
    from lm_eval.tasks._yaml_loader import load_yaml

    root = Path(lm_eval.__file__).parent / "tasks"
    config: dict[str, Any] = load_yaml(root / CONFIGS[task])
    records = [json.loads(line) for line in (folder / f"{task}.jsonl").read_text().splitlines()]
    file = folder / "hf" / f"{task}.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text("\n".join(json.dumps(record) for record in records))
    splits = [key for key in config if key.endswith("_split")]
    config = {key: value for key, value in config.items() if key not in splits}
    return config | {
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"test": str(file)}},
        "test_split": "test",
        "tag": None,
    }


@pytest.mark.parametrize("task", list(CONFIGS))
def test_tasks_agree_with_the_harness(
    task: str, model: TritLM, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lm_eval

    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    records = RECORDS[task]
    if task == "arc_easy":  # both of one form, as the harness has it
        records = [records[1], {**records[1], "question": "What is cold?", "answerKey": "3"}]
    if task == "hellaswag":
        records = [{**record, "label": str(record["label"])} for record in records]
    lines = [json.dumps(record) for record in records]
    (tmp_path / f"{task}.jsonl").write_text("\n".join(lines))
    logging.disable(logging.WARNING)
    try:
        found = lm_eval.simple_evaluate(
            model, tasks=[harness_config(task, tmp_path)], bootstrap_iters=0, verbosity=None
        )
    finally:
        logging.disable(logging.NOTSET)
    theirs = found["results"][task]
    ours = tasks(path, [task], tmp_path).results[0]
    compared = [metric for metric in ours.metrics if f"{metric.name},none" in theirs]
    assert {metric.name for metric in compared} >= {"acc"} and ours.cut == 0
    for metric in compared:
        assert metric.value.mean == pytest.approx(theirs[f"{metric.name},none"], rel=1e-5)
