"""The codebook formats against a search of everything: every scale, entry and sign of a block.

For a scale s the error of an octet is Σwx² - 2s·Σwxp + s²·Σwp², so that two numbers per entry say
it for all scales at once. With one sign of eight wrong, Σwxp is less by twice that weight's part.
"""

import numpy as np
import pytest
from numpy.typing import NDArray

from trit import formats
from trit.formats import _codebook
from trit.quantizers import rtn

pytestmark = pytest.mark.unsanitized

Floats = NDArray[np.float64]

EVEN = ("iq2_xxs", "iq2_xs", "iq3_xxs")  # an even number of minus signs in every octet
CODEBOOKS = (*EVEN, "iq2_s", "iq3_s", "iq1_s", "iq1_m")
SPAN = {"iq1_s": 32, "iq1_m": 8}  # weights that share a shift


def products(x: Floats, w: Floats, points: Floats) -> tuple[Floats, Floats]:
    """Σwxp and Σwp², each (parts, entries), of parts (…, width) with every point."""
    parts = x.reshape(-1, points.shape[1]), w.reshape(-1, points.shape[1])
    return (parts[0] * parts[1]) @ points.T, parts[1] @ (points.T**2)


def errors_of_groups(name: str, x: Floats, w: Floats, scales: Floats) -> Floats:
    """The least error of each group, up to Σwx², at every scale: (groups, scales)."""
    format = formats.get(name)
    groups = 256 // format.group
    points = _codebook.codebook(name).astype(np.float64)
    if name in SPAN:
        per_shift = []
        for shift in (0.125, -0.125):
            xp, pp = products(x, w, points + shift)
            per_shift.append(least_of(xp, pp, scales).reshape(256 // SPAN[name], -1, len(scales)))
        both = np.minimum(*(each.sum(axis=1) for each in per_shift))
        return both.reshape(groups, -1, len(scales)).sum(axis=1)
    points = points * format.unit
    right, pp = products(np.abs(x), w, points)
    found = least_of(right, pp, scales).reshape(32, -1, len(scales))
    whole = found.sum(axis=1)
    if name in EVEN:
        parts = (w * np.abs(x)).reshape(-1, 1, points.shape[1]) * points
        wrong = least_of(right - 2 * parts.min(axis=2), pp, scales).reshape(found.shape)
        odd = (x < 0).reshape(32, 8).sum(axis=1) % 2 == 1
        flipped = whole + (wrong - found).min(axis=1)
        whole = np.where(odd[:, None], flipped, whole)
    return whole.reshape(groups, -1, len(scales)).sum(axis=1)


def least_of(xp: Floats, pp: Floats, scales: Floats) -> Floats:
    """The least error of every part at every scale: (parts, scales)."""
    return np.stack([(s * (s * pp - 2 * xp)).min(axis=1) for s in scales], axis=1)


def least_error(name: str, x: Floats, w: Floats, ds: Floats) -> float:
    """The least error of one block over the block scales `ds`."""
    odd = np.arange(1, 16 if name in SPAN else 32, 2)
    errors = errors_of_groups(name, x, w, (ds[:, None] * odd).reshape(-1))
    per_d = errors.reshape(len(errors), len(ds), len(odd)).min(axis=2).sum(axis=0)
    return float((w * x * x).sum() + per_d.min())


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", CODEBOOKS)
def test_near_the_best_of_everything(name: str, weighted: bool) -> None:
    rng = np.random.default_rng(21)
    x = (rng.standard_t(5, (4, 256)) * 0.02).astype(np.float32)
    w = np.exp(1.5 * rng.standard_normal(256) * weighted).astype(np.float32)
    format = formats.get(name)
    packed = rtn.quantize(x, name, w if weighted else None)
    assert format.unpack is not None
    got = best = 0.0
    for row, d, values in zip(x, format.unpack(packed).d, format.decode(packed), strict=True):
        ds = np.array([*(d * np.linspace(0.7, 1.5, 41)), d]).astype(np.float16).astype(np.float64)
        exact = row.astype(np.float64), w.astype(np.float64)
        least = least_error(name, *exact, ds)
        error = float((exact[1] * (exact[0] - values) ** 2).sum())
        assert least * (1 - 1e-6) < error  # the search of everything does find what was chosen
        got, best = got + error, best + least
    # What the samples may miss. Few roundings decide where the importance is uneven, most of all
    # with eight scales to choose from.
    assert got < best * (1.05 if weighted else 1.01)
