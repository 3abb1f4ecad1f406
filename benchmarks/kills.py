"""Kill `trit quantize` at random moments and let it go on: the same bytes? At what cost?

    python benchmarks/kills.py model-f16.gguf --type Q4_K_M --kills 50

One job runs unbroken first. Then each of so many jobs is killed (SIGKILL) once, at a moment drawn
evenly over the unbroken job's time, and run again to its end. Work is processor time, of the killed
and the resumed process together: what else the machine does then matters little. What follows `--`
goes to `trit quantize`. Exit status 1 if any file differs.
"""

import argparse
import hashlib
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("--type", default="Q4_K_M")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to write; default: beside the source")
    parser.add_argument("--json", action="store_true")
    own, more = sys.argv[1:], []
    if "--" in own:
        own, more = own[: own.index("--")], own[own.index("--") + 1 :]
    args = parser.parse_args(own)
    draw = random.Random(args.seed)
    with tempfile.TemporaryDirectory(dir=args.folder or args.source.parent) as folder:
        out = Path(folder) / "out.gguf"
        command = [sys.executable, "-m", "trit", "quantize", str(args.source), str(out)]
        command += ["--type", args.type, "--json", *more]
        whole, seconds, _ = run(command, None)
        wanted = digest(out)
        print(f"unbroken: {seconds:.1f} s, {whole:.1f} s of processors, {wanted[:16]}", flush=True)
        ratios, different, again = [], 0, 0
        for number in range(args.kills):
            out.unlink()
            moment = draw.uniform(0, seconds)
            lost, _, answer = run(command, moment)
            noted = finished(out)
            if answer is None:
                rest, _, answer = run(command, None)
            else:  # done before the moment came
                rest = 0.0
            assert answer is not None
            again += max(0, noted - answer["resumed_tensors"])
            different += digest(out) != wanted
            ratios.append((lost + rest) / whole)
            print(
                f"{number + 1:3d}: killed after {moment:.1f} s, {noted} tensors were finished, "
                f"{answer['resumed_tensors']} kept; work {ratios[-1]:.3f} of the unbroken",
                file=sys.stderr,
                flush=True,
            )
    result = {
        "kills": args.kills,
        "different": different,
        "tensors_done_again": again,
        "work_median": statistics.median(ratios),
        "work_mean": statistics.fmean(ratios),
        "work_most": max(ratios),
    }
    print(json.dumps(result) if args.json else "\n".join(f"{k}: {v}" for k, v in result.items()))
    return int(different > 0)


def run(command: list[str], kill_after: float | None) -> tuple[float, float, dict | None]:
    """Processor seconds, wall seconds, and the answer; None: it was killed before it came."""
    before, begun = processor_seconds(), time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        out, err = process.communicate(timeout=kill_after)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return processor_seconds() - before, time.perf_counter() - begun, None
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{err}")
    return processor_seconds() - before, time.perf_counter() - begun, json.loads(out)


def processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def finished(out: Path) -> int:
    """Tensors that the killed job's journal notes."""
    journal = out.with_name(out.name + ".partial.journal")
    lines = journal.read_text().splitlines()[1:] if journal.exists() else []
    return sum(line.endswith("}") for line in lines)


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
