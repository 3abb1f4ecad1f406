#!/usr/bin/env python3
"""Ask llama.cpp which type every tensor gets in every mix, and record the answers for the tests.

    python scripts/mixes_golden.py path/to/llama-quantize

Writes tests/data/mixes.json: for each model shape of tests/mix_cases.py, set of flags and kind of
tensor, the types in the order of the layers, run-length coded ("q6_k*4 q4_k*2"), and which mixes
give them. Vectors, which are never touched, are left out. The models are sparse files of headers
and holes: `--dry-run` reads no weights.
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from mix_cases import CASES, OPTION_CASES, OPTION_MIXES, OPTIONS, Case  # noqa: E402
from trit.recipe._mixes import ALIASES, MIXES  # noqa: E402

Answers = dict[str, dict[str, dict[str, str]]]

_LINE = re.compile(r"^\[ *\d+/ *\d+\] (\S+) .*type = +(\w+), size = .*?(?:\((\w+)\))?$")


def write_model(path: Path, case: Case) -> None:
    """A GGUF with the case's header and no data (a sparse file of the right length)."""
    import gguf

    writer = gguf.GGUFWriter(path, case.arch)
    for key, value in case.metadata.items():
        if isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
    total = 0
    for name, shape in case.tensors:
        is_f32 = case.format(name, shape) == "f32"
        dtype = gguf.GGMLQuantizationType.F32 if is_f32 else gguf.GGMLQuantizationType.F16
        count = 1
        for n in shape:
            count *= n
        size = count * (4 if is_f32 else 2)
        writer.add_tensor_info(name, shape, None, size, raw_dtype=dtype)  # type: ignore[arg-type]
        total += -(-size // 32) * 32
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("r+b") as file:
        header = -(-path.stat().st_size // 32) * 32
        file.truncate(header + total)


def write_imatrix(path: Path) -> None:
    """Importance data for one tensor: enough for the mixes to know that there is some."""
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(path, "", use_temp_file=False)
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", ["none"])
    writer.add_uint32("imatrix.chunk_count", 1)
    writer.add_uint32("imatrix.chunk_size", 512)
    writer.add_tensor("blk.0.attn_q.weight.in_sum2", np.ones((1, 32), np.float32))
    writer.add_tensor("blk.0.attn_q.weight.counts", np.ones((1, 1), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def dry_run(tool: str, model: Path, mix: str, flags: Sequence[str] = ()) -> dict[str, str]:
    """Tensor name -> type, lower case, as the tool prints them."""
    command = [tool, "--dry-run", "--allow-requantize", *flags, str(model), mix]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    types = {}
    for line in (done.stdout + done.stderr).splitlines():
        if found := _LINE.match(re.sub(r"\(WARNING.*?\)|warning: .*?-> falling back.*", "", line)):
            types[found.group(1)] = (found.group(3) or found.group(2)).lower()
    return types


def pack(types: Mapping[str, str]) -> dict[str, str]:
    """{'blk.0.attn_v.weight': 'q6_k', ...} -> {'attn_v.weight': 'q6_k*4 q4_k', ...}."""
    kinds: dict[str, dict[int, str]] = defaultdict(dict)
    for name, fmt in types.items():
        if "_norm" in name or name.endswith(".bias"):
            continue
        found = re.match(r"blk\.(\d+)\.(.*)", name)
        kinds[found.group(2) if found else name][int(found.group(1)) if found else 0] = fmt
    packed = {}
    for kind in sorted(kinds):
        runs = itertools.groupby(fmt for _, fmt in sorted(kinds[kind].items()))
        counted = [(fmt, len(list(group))) for fmt, group in runs]
        packed[kind] = " ".join(fmt if n == 1 else f"{fmt}*{n}" for fmt, n in counted)
    return packed


def ask(tool: str, folder: Path, name: str) -> Answers:
    """All answers for one case: flags -> kind of tensor -> types -> the mixes that give them."""
    model, imatrix = folder / f"{name}.gguf", folder / "imatrix.gguf"
    write_model(model, CASES[name])
    write_imatrix(imatrix)
    runs: dict[str, tuple[Sequence[str], Sequence[str]]] = {
        "": ((), (*MIXES, *ALIASES)),
        "imatrix": (("--imatrix", str(imatrix)), tuple(MIXES)),
    }
    if name in OPTION_CASES:
        runs |= {key: (flags, OPTION_MIXES) for key, flags in OPTIONS.items()}
    answers: dict[str, dict[str, dict[str, list[str]]]] = {}
    for key, (flags, mixes) in runs.items():
        kinds = answers[key] = {}
        for mix in mixes:
            for kind, types in pack(dry_run(tool, model, mix, flags)).items():
                kinds.setdefault(kind, {}).setdefault(types, []).append(mix)
    model.unlink()
    return {
        flags: {
            kind: {types: " ".join(mixes) for types, mixes in by_types.items()}
            for kind, by_types in kinds.items()
        }
        for flags, kinds in answers.items()
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        answers = {name: ask(sys.argv[1], Path(folder), name) for name in CASES}
    target = ROOT / "tests" / "data" / "mixes.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(answers, indent=0, sort_keys=True) + "\n")
    print(f"{target}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
