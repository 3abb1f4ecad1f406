"""trit against llama.cpp on the same files, in one interleaved run: decoding, prefill, quantizing.

    python benchmarks/against_llama_cpp.py MODEL.gguf [MODEL.gguf …] [-t 2] [-r 5] [-p 512] [-n 64]
    python benchmarks/against_llama_cpp.py --quantize F16.gguf [--type Q4_K_M] [-t 2] [-r 3]

Needs llama-cpp-python built from its source package on this machine (`pip install --no-binary
llama-cpp-python llama-cpp-python`); its system info is printed, so that one sees what it was built
for. Each measurement is a process of its own; the two programs take turns, and what is
reported is the median of each and of the ratios pair by pair.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOKEN = 100  # any ordinary token: the work does not depend on it


def measure_trit(model: str, prompt: int, generate: int, threads: int) -> dict[str, float]:
    """Tokens per second of a prompt and of decoding behind it."""
    from trit import archs
    from trit.engine import Engine, Rows
    from trit.files import checkpoint

    with checkpoint.open(Path(model)) as source:
        engine = Engine(archs.plan(source), source.tensors, threads=threads, ctx=prompt + generate)
        tokens = [TOKEN + i % 1000 for i in range(prompt)]
        engine.forward(Rows.of(tokens[:32]))  # warm
        engine.remove()
        start = time.perf_counter()
        engine.forward(Rows.of(tokens))
        middle = time.perf_counter()
        for i in range(generate):
            engine.forward(Rows.of([TOKEN], start=prompt + i))
        end = time.perf_counter()
    return {"pp": prompt / (middle - start), "tg": generate / (end - middle)}


def measure_llama(model: str, prompt: int, generate: int, threads: int) -> dict[str, float]:
    """The same through llama.cpp's own calls."""
    import llama_cpp

    llama = llama_cpp.Llama(
        model, n_ctx=prompt + generate + 8, n_batch=512, n_threads=threads,
        n_threads_batch=threads, verbose=False,
    )  # fmt: skip
    context = llama.ctx

    def decode(tokens: list[int]) -> None:
        array = (llama_cpp.llama_token * len(tokens))(*tokens)
        code = llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(array, len(tokens)))
        llama_cpp.llama_synchronize(context)
        if code:
            raise SystemExit(f"llama_decode returned {code}")

    tokens = [TOKEN + i % 1000 for i in range(prompt)]
    decode(tokens[:32])
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
    start = time.perf_counter()
    decode(tokens)
    middle = time.perf_counter()
    for _ in range(generate):
        decode([TOKEN])
    end = time.perf_counter()
    return {"pp": prompt / (middle - start), "tg": generate / (end - middle)}


def quantize_trit(source: str, kind: str, threads: int) -> dict[str, float]:
    """Files per second (one over the seconds a whole quantization takes)."""
    import trit

    with tempfile.TemporaryDirectory(dir=Path(source).parent) as folder:
        start = time.perf_counter()
        trit.quantize(source, Path(folder) / "out.gguf", kind, threads=threads)
        return {"quantize": 1 / (time.perf_counter() - start)}


def quantize_llama(source: str, kind: str, threads: int) -> dict[str, float]:
    import llama_cpp

    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.nthread = threads
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    parameters.allow_requantize = True
    with tempfile.TemporaryDirectory(dir=Path(source).parent) as folder:
        out = str(Path(folder) / "out.gguf")
        start = time.perf_counter()
        if llama_cpp.llama_model_quantize(source.encode(), out.encode(), parameters):
            raise SystemExit("llama_model_quantize failed")
        return {"quantize": 1 / (time.perf_counter() - start)}


def child(job: dict[str, object]) -> dict[str, float]:
    """One measurement in a process of its own."""
    command = [sys.executable, __file__, "--child", json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    if done.returncode:
        raise SystemExit(done.stderr)
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def compare(title: str, job: dict[str, object], rounds: int) -> None:
    pairs = []
    for _ in range(rounds):
        pairs.append((child({"who": "trit", **job}), child({"who": "llama", **job})))
    for test in pairs[0][0]:
        ours = [a[test] for a, _ in pairs]
        theirs = [b[test] for _, b in pairs]
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        print(
            f"{title:<42} {test:<9} trit {statistics.median(ours):9.3f}"
            f"  llama.cpp {statistics.median(theirs):9.3f}  ratio {statistics.median(ratios):5.2f}"
            f"  ({min(ratios):.2f} … {max(ratios):.2f}, n={rounds})",
            flush=True,
        )


def run_child(job: dict[str, object]) -> None:
    who, threads = str(job["who"]), int(str(job["threads"]))
    if job["task"] == "run":
        measure = measure_trit if who == "trit" else measure_llama
        result = measure(
            str(job["model"]), int(str(job["prompt"])), int(str(job["generate"])), threads
        )
    else:
        quantize = quantize_trit if who == "trit" else quantize_llama
        result = quantize(str(job["model"]), str(job["type"]), threads)
    print(json.dumps(result))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("models", nargs="*")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--quantize", metavar="F16.gguf")
    parser.add_argument("--type", default="Q4_K_M")
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("-r", "--rounds", type=int, default=5)
    parser.add_argument("-p", "--prompt", type=int, default=512)
    parser.add_argument("-n", "--generate", type=int, default=64)
    options = parser.parse_args()
    if options.child:
        run_child(json.loads(options.child))
        return
    import llama_cpp

    print("llama.cpp:", llama_cpp.llama_print_system_info().decode(), file=sys.stderr)
    for model in options.models:
        job = {
            "task": "run", "model": model, "threads": options.threads,
            "prompt": options.prompt, "generate": options.generate,
        }  # fmt: skip
        compare(Path(model).name, job, options.rounds)
    if options.quantize:
        job = {
            "task": "quantize", "model": options.quantize, "type": options.type,
            "threads": options.threads,
        }  # fmt: skip
        compare(f"{Path(options.quantize).name} to {options.type}, 1/s", job, options.rounds)


if __name__ == "__main__":
    main()
