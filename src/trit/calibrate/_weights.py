"""The weights of one layer, in a form that the engine multiplies fast, on an engine of their own.

Products with F32, F16 and BF16 weights run in floats, three times slower than with integers. For
statistics such weights are rounded to Q8_0, 256 levels per 32 weights: what that does to the inputs
of later layers is little beside what rounding their activations does to them in any case.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache

import numpy as np

from trit import _core, archs, formats
from trit.calibrate._inputs import shared
from trit.engine import Engine
from trit.errors import InvalidFileError
from trit.files._mapping import forget
from trit.files._tensor import Tensor
from trit.plan import Linear, Norm, Plan

PART_WEIGHTS = 1 << 18  # 1 MiB as float32: stays in a core's cache from decoding to rounding

LARGEST = 127 * 65504.0  # of a weight in Q8_0, whose scales are float16

_ROUNDED = "q8_0"
_NONE = "none"  # stands for the embedding and the head, which belong to no layer


def weights(plan: Plan, index: int) -> list[str]:
    """Names of the matrices of a layer, in running order."""
    return [name for inputs in shared(plan.layers[index]) for name in inputs.names]


def vectors(plan: Plan, index: int) -> list[str]:
    """Names of its norms, biases and sinks."""
    outside = set(archs.vectors(replace(plan, layers=())))
    inside = archs.vectors(replace(plan, layers=(plan.layers[index],)))
    return [name for name in inside if name not in outside]


def open_layer(
    path: object,
    plan: Plan,
    index: int,
    tensors: Mapping[str, Tensor],
    *,
    ctx: int,
    batch: int,
    threads: int,
    isa: str,
    exact: bool,
) -> Engine:
    """An engine of layer `index` alone; its cache holds that layer's keys and values, no others.

    `exact`: leave float weights as they are. InvalidFileError, naming `path`, for one that is no
    number or too large for Q8_0.
    """
    one = replace(
        plan,
        layers=(plan.layers[index],),
        embedding=_NONE,
        vocab_size=1,
        output_norm=Norm(_NONE, 0.0),
        head=Linear(_NONE, 1, plan.width),
    )
    ready = {name: tensors[name] for name in vectors(plan, index)}
    zeros = np.zeros((1, 4 * plan.width), np.uint8)
    ready[_NONE] = Tensor(_NONE, (1, plan.width), formats.get("f32"), zeros)
    for name in weights(plan, index):
        tensor = tensors[name]
        if not exact and is_slow(tensor):
            ready[name] = rounded(tensor, path, threads, isa)
            forget()
        else:
            ready[name] = tensor
    return Engine(one, ready, threads, ctx, batch, repack=True)


def is_slow(tensor: Tensor) -> bool:
    """Whether a matrix is multiplied in floats and could be rounded; what routes is left alone."""
    if len(tensor.shape) < 2 or tensor.cols % formats.get(_ROUNDED).block_weights:
        return False
    return tensor.format.name not in _integer_formats() and not archs.is_router(tensor.name)


@cache
def _integer_formats() -> frozenset[str]:
    return frozenset(row["name"] for row in _core.formats() if row["integer"])


def rounded(tensor: Tensor, path: object, threads: int, isa: str) -> Tensor:
    """The tensor in Q8_0. InvalidFileError, naming `path`, for a weight that it cannot hold."""
    target = formats.get(_ROUNDED)
    stored = np.ascontiguousarray(tensor.data).reshape(tensor.rows, -1)
    data = np.empty((tensor.rows, target.row_bytes(tensor.cols)), np.uint8)
    step = max(1, PART_WEIGHTS // tensor.cols)

    def part(first: int) -> None:
        rows = stored[first : first + step]
        values = _core.decode(tensor.format.name, rows, tensor.cols, isa)
        if not (values.min() >= -LARGEST and values.max() <= LARGEST):  # NaN comes through both
            row, column = np.unravel_index(int(np.argmin(abs(values) <= LARGEST)), values.shape)
            where = f"tensor {tensor.name!r} row {first + int(row)}, column {int(column)}"
            most = f" of at most {LARGEST:,.0f}" if np.isfinite(values[row, column]) else ""
            problem = f"expected a finite weight{most}, got {values[row, column]:g}"
            raise InvalidFileError(path, where, problem)
        data[first : first + step] = _core.quantize(target.name, values, None, 1, isa)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(part, range(0, tensor.rows, step)))
    return Tensor(tensor.name, tensor.shape, target, data.reshape(*tensor.shape[:-1], -1))
