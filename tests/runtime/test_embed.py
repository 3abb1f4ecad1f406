"""Vectors of texts: the mean of the last hidden states, the same in any company and any passes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

import talking_model
from trit.engine import Rows
from trit.errors import UsageError
from trit.files import checkpoint
from trit.runtime.embed import Reading
from trit.runtime.model import Model, load
from trit.runtime.scheduler import Scheduler

TEXT = "the cat and the other cat"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path = talking_model.write(tmp_path_factory.mktemp("models") / "model.gguf")
    with load(path, threads=1) as opened:
        yield opened


def vector(scheduler: Scheduler, tokens: list[int]) -> NDArray[np.float32]:
    reading = Reading(scheduler, tokens)
    while not reading.read():
        pass
    return reading.vector


def test_the_mean_of_the_last_hidden_states(model: Model) -> None:
    ids = model.tokenize(TEXT)
    pages = model.engine.cache_pages()
    got = vector(model.scheduler, ids)
    hidden = model.engine.normed(model.engine.hidden(Rows.of(ids, 0, 99)))
    model.engine.remove(99)
    mean = hidden.astype(np.float64).mean(axis=0)
    assert np.allclose(got, mean / np.linalg.norm(mean), atol=1e-6)
    assert np.isclose(np.linalg.norm(got), 1)
    assert model.engine.cache_pages() == pages


def test_what_the_matrix_of_the_head_takes(model: Model) -> None:
    """Normed hidden states times the head's matrix are the logits, within half precision."""
    hidden = model.engine.hidden(Rows.of(model.tokenize(TEXT), 0, 99))
    model.engine.remove(99)
    with checkpoint.open(model.path) as file:
        matrix = file.tensors[model.plan.head.weight].decode()
    logits = model.engine.head(hidden)
    got = model.engine.normed(hidden) @ matrix.T
    assert np.abs(got - logits).max() < 2e-3 * np.abs(logits).max()


@pytest.mark.parametrize("rows", [1, 5])
def test_passes_and_company_change_no_bit(model: Model, rows: int) -> None:
    ids = model.tokenize(TEXT * 5)
    whole = vector(model.scheduler, ids)
    few = Scheduler(model.engine, pass_rows=rows)
    reading, other = Reading(few, ids), Reading(few, ids[::-1])
    while not reading.read():
        other.read()
    assert np.array_equal(reading.vector, whole)
    other.drop()


def test_what_cannot_be_embedded(model: Model) -> None:
    for tokens in ([], [model.plan.vocab_size], [-1]):
        with pytest.raises(UsageError):
            Reading(model.scheduler, tokens)
