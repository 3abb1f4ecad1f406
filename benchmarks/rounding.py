"""Our rounding error over ggml's, for every type, distribution and use of importance.

    python benchmarks/rounding.py [--rows 128] [--seed 1] [--model FILE.gguf]... [--speed]

Below 1 our encoder is nearer to the weights. The error is Σ importance · (weight - value)²; without
importance it is the plain sum of squares. Importance is log-normal with a spread of e^1.5. A
model's matrices are taken from its GGUF file: dequantized, and each weight moved by at most half
its own step, so that no encoder is flattered by finding the old grid again. --speed adds millions
of weights per second and thread, ours / ggml's.

Needs llama-cpp-python (pip install 'trit[bench]').
"""

import argparse
import ctypes
import importlib.metadata
import importlib.util
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trit import engine, formats
from trit.files import gguf
from trit.quantizers import rtn

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Encode = Callable[[Floats, str, Floats | None], Bytes]

NAMES = [
    "q8_0",
    "q6_k",
    "q5_k",
    "q5_1",
    "q5_0",
    "q4_k",
    "q4_1",
    "q4_0",
    "iq4_nl",
    "iq4_xs",
    "q3_k",
    "q2_k",
    "tq1_0",
    "tq2_0",
    "iq3_s",
    "iq3_xxs",
    "iq2_s",
    "iq2_xs",
    "iq2_xxs",
    "iq1_m",
    "iq1_s",
    "mxfp4",
]
# Types that ggml aborts on without importance: it is given ones.
WEIGHTED_ONLY = {"iq1_s", "iq1_m", "iq2_xxs", "iq2_xs"}
MATRICES = ("blk.3.attn_q", "blk.3.ffn_down", "blk.9.ffn_gate")
COLS = 2048


def ggml_encoder() -> Encode:
    """`ggml_quantize_chunk` of the installed llama-cpp-python."""
    found = importlib.util.find_spec("llama_cpp")
    if found is None or found.origin is None:
        sys.exit("llama-cpp-python is not installed: pip install 'trit[bench]'")
    library = ctypes.CDLL(str(next((Path(found.origin).parent / "lib").glob("libggml-base.*"))))
    library.ggml_quantize_chunk.restype = ctypes.c_size_t

    def encode(weights: Floats, name: str, importance: Floats | None) -> Bytes:
        format = formats.get(name)
        if importance is None and name in WEIGHTED_ONLY:
            importance = np.ones(weights.shape[1], dtype=np.float32)
        out = np.empty((weights.shape[0], format.row_bytes(weights.shape[1])), dtype=np.uint8)
        library.ggml_quantize_chunk(
            ctypes.c_int(format.ggml_type),
            weights.ctypes.data_as(ctypes.c_void_p),
            out.ctypes.data_as(ctypes.c_void_p),
            ctypes.c_int64(0),
            *(ctypes.c_int64(n) for n in weights.shape),
            None if importance is None else importance.ctypes.data_as(ctypes.c_void_p),
        )
        return out

    return encode


def our_encoder(weights: Floats, name: str, importance: Floats | None) -> Bytes:
    """One thread, as ggml's."""
    return rtn.quantize(weights, name, importance, threads=1)


def dithered(weights: Floats, group: int, rng: np.random.Generator) -> Floats:
    """Each weight moved by at most half the least gap between the weights of its group."""
    groups = weights.reshape(-1, group)
    gaps = np.diff(np.sort(groups, axis=1), axis=1)
    gaps[gaps <= 1e-9] = np.inf
    step = gaps.min(axis=1, keepdims=True)
    step[~np.isfinite(step)] = 0
    noise = rng.random(groups.shape, dtype=np.float32) - np.float32(0.5)
    return (groups + noise * step).reshape(weights.shape)


def distributions(rows: int, seed: int, models: list[Path]) -> dict[str, Floats]:
    """Named matrices (rows, cols) float32."""
    rng = np.random.default_rng(seed)
    found = {
        "gaussian": rng.standard_normal((rows, COLS)),
        "student4": rng.standard_t(4, (rows, COLS)),
    }
    found = {name: (matrix * 0.02).astype(np.float32) for name, matrix in found.items()}
    for path in models:
        with gguf.open(path) as file:
            for matrix in MATRICES:
                tensor = file.tensors[f"{matrix}.weight"]
                weights = tensor.decode()[:rows]
                cols = weights.shape[1] // 256 * 256  # so that every type can hold it
                weights = np.ascontiguousarray(weights[:, :cols])
                found[f"{path.stem[:6]} {matrix[6:]}"] = dithered(weights, tensor.format.group, rng)
    return found


def error(weights: Floats, packed: Bytes, name: str, importance: Floats | None) -> float:
    """Weighted sum of squared errors, in float64."""
    off = weights.astype(np.float64) - formats.get(name).decode(packed)
    return float((off * off * (1.0 if importance is None else importance)).sum())


def speed(encode: Encode, weights: Floats, name: str, importance: Floats | None) -> float:
    """Millions of weights per second of processor time; the best of three."""
    seconds = []
    encode(weights[:1], name, importance)  # tables are made at the first call
    for _ in range(3):
        start = time.process_time()
        encode(weights, name, importance)
        seconds.append(time.process_time() - start)
    return weights.size / min(seconds) / 1e6


def main() -> None:
    """Print one line per type and use of importance, one column per distribution."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", type=Path, action="append", default=[])
    parser.add_argument("--speed", action="store_true")
    options = parser.parse_args()
    ggml = ggml_encoder()
    matrices = distributions(options.rows, options.seed, options.model)
    version = importlib.metadata.version("llama-cpp-python")
    print(
        f"our error / ggml's; {options.rows} rows, seed {options.seed}, "
        f"llama-cpp-python {version}, numpy {np.__version__}, {engine.isa()}, {platform.machine()}"
    )
    print(f"{'type':<8}{'importance':<12}" + "".join(f"{name:>18}" for name in matrices))
    for name in NAMES:
        for weighted in (False, True):
            line = f"{name:<8}{'log-normal' if weighted else 'none':<12}"
            for number, weights in enumerate(matrices.values()):
                rng = np.random.default_rng([options.seed, number])
                drawn = np.exp(1.5 * rng.standard_normal(weights.shape[1])).astype(np.float32)
                data = drawn if weighted else None
                ours, theirs = (
                    error(weights, encode(weights, name, data), name, data)
                    for encode in (our_encoder, ggml)
                )
                line += f"{ours / theirs:>18.3f}"
            if options.speed:
                first = next(iter(matrices.values()))
                data = np.ones(first.shape[1], dtype=np.float32) if weighted else None
                rates = [speed(encode, first, name, data) for encode in (our_encoder, ggml)]
                line += f"{rates[0]:>8.0f} / {rates[1]:.0f} Mw/s"
            print(line, flush=True)


if __name__ == "__main__":
    main()
