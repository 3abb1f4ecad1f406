"""Never worse than ggml's own encoder, judged by the error that each claims to make small."""

import numpy as np
import pytest
from ggml_encoder import GgmlEncoder, load
from numpy.typing import NDArray

from trit import formats
from trit.quantizers import rtn
from trit.quantizers._grids import FLOATS, WRITTEN

pytestmark = pytest.mark.unsanitized

GRIDS = sorted(WRITTEN - FLOATS)


@pytest.fixture(scope="module")
def ggml() -> GgmlEncoder:
    return load()


def draw(kind: str, rng: np.random.Generator) -> NDArray[np.float32]:
    shape = (48, 1024)
    if kind == "gaussian":
        weights = rng.standard_normal(shape)
    elif kind == "heavy":
        weights = rng.standard_t(3, shape)
    else:  # columns and rows of unequal size, as trained matrices have
        weights = rng.standard_normal(shape) * np.exp(0.5 * rng.standard_normal(shape[1]))
        weights *= np.exp(0.5 * rng.standard_normal((shape[0], 1)))
    return (weights * 0.02).astype(np.float32)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["gaussian", "heavy", "uneven"])
@pytest.mark.parametrize("name", GRIDS)
def test_no_worse_than_ggml(ggml: GgmlEncoder, name: str, kind: str, weighted: bool) -> None:
    rng = np.random.default_rng(11)
    weights = draw(kind, rng)
    importance = np.exp(1.5 * rng.standard_normal(weights.shape[1])).astype(np.float32)
    data = importance if weighted else None
    judged = importance if weighted else np.ones_like(importance)
    errors = []
    for packed in (rtn.quantize(weights, name, data), ggml.quantize(weights, name, data)):
        off = weights.astype(np.float64) - formats.get(name).decode(packed)
        errors.append(float((off * off * judged).sum()))
    assert errors[0] <= errors[1]
