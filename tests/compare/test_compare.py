"""`trit.compare`: answers of real files, made once, judged by a machine, told as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import talking_model
import trit
from compare import studies
from trit.compare import Making, Settings, Store, Voting, results
from trit.compare.judge import judgement, likelihood
from trit.compare.making import TOGETHER, ids
from trit.compare.study import checked_prompts, read_prompts
from trit.errors import DoesNotFitError, InvalidFileError, TritError, UsageError

SETTINGS = Settings(max_tokens=6, ctx=200, seed=2)
PROMPTS = [f"Tell me about {i}." for i in range(1, 12)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A model in F16 and in Q8_0 and Q2_K."""
    folder = tmp_path_factory.mktemp("models")
    whole = talking_model.write(folder / "f16.gguf")
    for kind in ("Q8_0", "Q2_K"):
        trit.quantize(whole, folder / f"{kind}.gguf", kind, threads=1)
    return [whole, folder / "Q8_0.gguf", folder / "Q2_K.gguf"]


@pytest.fixture(scope="module")
def study(models: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("studies") / "study.sqlite"
    trit.compare(models[::-1], PROMPTS, path, SETTINGS, judge=models[0], threads=1)
    return path


def test_models_go_from_the_heaviest(study: Path) -> None:
    with Store.open(study) as store:
        assert [m.name for m in store.models] == ["f16", "Q8_0", "Q2_K"]
        assert [m.type for m in store.models] == ["f16", "q8_0", "q2_k"]
        assert all(len(m.sha256) == 64 and m.bytes > 1000 for m in store.models)
        assert json.loads(store.models[2].recipe or "")["mix"] == "Q2_K"
        assert store.answered() == list(range(1, 12))
        assert sum(draw == (0, 1) for draw, _ in store.answers()) == 1  # of a catch, on prompt 10


def test_an_answer_is_the_models_own(study: Path, models: list[Path]) -> None:
    """With the seed that the file names, alone or in a batch."""
    with Store.open(study) as store, trit.load(models[1], 200, threads=1) as model:
        row = store._one("SELECT * FROM answer WHERE model = 1 AND prompt = 9")
        got = model.generate(
            ids(model, PROMPTS[8], None), max_tokens=6, seed=row["seed"], sampling=model.sampling
        )
        assert got.text == row["text"] and got.stats.tokens == row["tokens"] <= 6
        assert row["prompt_tokens"] == got.stats.prompt_tokens


def test_answers_are_made_once(models: list[Path], tmp_path: Path) -> None:
    """A study that was interrupted goes on, and has what one in a single piece has."""
    whole, path = tmp_path / "whole.sqlite", tmp_path / "study.sqlite"
    trit.compare(models[:2], PROMPTS, whole, SETTINGS, threads=1)

    def interrupt(making: Making) -> None:
        if making.done >= TOGETHER:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trit.compare(models[:2], PROMPTS, path, SETTINGS, threads=1, on_progress=interrupt)
    told: list[Making] = []
    assert trit.compare([], [], path, threads=1, on_progress=told.append).planned == 12
    assert told[0].done == TOGETHER and told[-1].done == told[-1].total == 23
    assert told[0].most_tokens == 6 * (23 - TOGETHER)
    with Store.open(whole) as one, Store.open(path) as other:
        assert one.answers() == other.answers()
    told.clear()
    trit.compare(models[:2], [*PROMPTS, "One more."], path, threads=1, on_progress=told.append)
    assert [making.done for making in told] == [23, 24, 24, 25]


def test_what_does_not_belong_to_a_study(study: Path, models: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="another study"):
        trit.compare(models[:2], [], study)
    with pytest.raises(UsageError, match="max_tokens 6, now it is 7"):
        trit.compare([], [], study, Settings(max_tokens=7, ctx=200, seed=2))
    for wrong in ([], models[:1]):
        with pytest.raises(UsageError, match="two or more"):
            trit.compare(wrong, PROMPTS, tmp_path / "s.sqlite")
    with pytest.raises(UsageError, match="no prompts"):
        trit.compare(models, [], tmp_path / "s.sqlite")
    with pytest.raises(UsageError, match="same file"):
        trit.compare([models[0], models[0]], PROMPTS, tmp_path / "s.sqlite")
    assert not (tmp_path / "s.sqlite").exists()
    with pytest.raises(DoesNotFitError, match="prompt 1 of the study"):
        trit.compare(models[:2], ["x" * 300], tmp_path / "s.sqlite", SETTINGS, threads=1)


def test_a_file_that_changed(models: list[Path], tmp_path: Path) -> None:
    copies = [tmp_path / path.name for path in models[1:]]
    for path, copy in zip(models[1:], copies, strict=True):
        copy.write_bytes(path.read_bytes())
    trit.compare(copies, PROMPTS[:1], tmp_path / "s.sqlite", SETTINGS, threads=1)
    copies[1].write_bytes(models[0].read_bytes())
    with pytest.raises(TritError, match="another file"):
        trit.compare([], PROMPTS[:2], tmp_path / "s.sqlite", threads=1)


def test_the_judge_reads_whole_answers(study: Path, models: list[Path]) -> None:
    """Its sum of ln p is that of the tokens one by one."""
    with Store.open(study) as store, trit.load(models[0], 200, threads=1) as model:
        known = store.likelihoods(1)
        assert len(known) == 33
        text = store.text((2, 0), 4).strip()
        nats, tokens = likelihood(model, PROMPTS[3], text, None)
        assert known[2, 4] == (nats, tokens)
        before = list(ids(model, PROMPTS[3], None))
        after = model.tokenizer.encode(text, add_special=False)
        total = 0.0
        for place, token in enumerate(after):
            forced = model.generate(
                before + after[:place], max_tokens=1, logprobs=300, temperature=0
            )
            assert forced.logprobs is not None
            total += dict(forced.logprobs[0].top)[token]
        assert len(after) == tokens and nats == pytest.approx(total, abs=1e-3)


def test_a_judges_votes(study: Path) -> None:
    with Store.open(study) as store:
        found = judgement(store, 1, epsilon=0.0)
        assert found.unjudged == 0 and found.name == "f16"
        means = {key: nats / tokens for key, (nats, tokens) in store.likelihoods(1).items()}
        first = found.pairs[0]
        assert (first.heavier, first.lighter) == ("f16", "Q8_0")
        margins = np.array([means[0, p] - means[1, p] for p in range(1, 12)])
        texts = store.answers()
        same = sum(texts[(0, 0), p].strip() == texts[(1, 0), p].strip() for p in range(1, 12))
        assert (first.wins, first.losses) == ((margins > 0).sum(), (margins < 0).sum())
        assert first.same == same == 11 - first.wins - first.losses
        margin = found.margins[0]
        assert margin is not None and margin.value == pytest.approx(margins.mean())
        tied = judgement(store, 1, epsilon=100.0).pairs[0]
        assert tied.wins == tied.losses == 0 and tied.ties + tied.same == 11


def test_judges_are_no_people(study: Path) -> None:
    found = trit.compare([], [], study)
    assert found.votes == found.voters == 0 and found.pairs[0].votes == 0
    assert found.pairs[0].score is None and found.strengths is None
    answer = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert answer["judgements"][0]["pairs"][0]["votes"] == 11
    assert answer["models"][2]["type"] == "q2_k" and answer["planned"] == 34


def test_prompts_of_files(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("\ufeffOne\n\n  Two  \r\n")
    assert read_prompts(tmp_path / "p.txt") == ["One", "Two"]
    (tmp_path / "p.jsonl").write_text('{"prompt": "One\\nline two", "id": 3}\n\n')
    assert read_prompts(tmp_path / "p.jsonl") == ["One\nline two"]
    for content in (b"", b" \n", b"\xff\n"):
        (tmp_path / "p.txt").write_bytes(content)
        with pytest.raises(InvalidFileError):
            read_prompts(tmp_path / "p.txt")
    for line in ("no json", '{"text": "x"}', "[" * 100_000, '{"prompt": 3}'):
        (tmp_path / "p.jsonl").write_text(f'{{"prompt": "One"}}\n{line}\n')
        with pytest.raises(InvalidFileError, match="line 2"):
            read_prompts(tmp_path / "p.jsonl")
    with pytest.raises(InvalidFileError, match="--prompts"):
        read_prompts(tmp_path / "missing.txt")
    with pytest.raises(UsageError, match="prompts 1 and 3 are the same"):
        checked_prompts(["One", "Two", "One"])


def test_an_earlier_look_counts(tmp_path: Path) -> None:
    """Also where a vote was undone and cast anew since: it is the votes ever cast that count."""
    with studies.written(tmp_path / "s.sqlite") as store:
        voting = Voting(store)
        for _ in range(8):
            shown = voting.next("ann")
            assert shown is not None
            voting.vote(shown.token, "1" if studies.author(shown.texts[0]) == 0 else "2")
        first, again = results(store), results(store)
        assert first.looks == [] and again.looks == [8]
        assert first.pairs[0].p == again.pairs[0].p == again.pairs[0].p_fixed < 0.01
        shown = voting.undo("ann")
        assert shown is not None
        voting.vote(shown.token, "1" if studies.author(shown.texts[0]) == 0 else "2")
        later = results(store)
        assert later.votes == 8 and later.pairs[0].p == later.pairs[0].p_always > 0.03
        assert later.to_dict()["pairs"][0]["told"] is True
