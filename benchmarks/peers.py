"""trit against llama.cpp and ik_llama.cpp on the same files, in one interleaved run.

    python benchmarks/peers.py MODEL.gguf … --ik-python IKVENV/bin/python [-t 2] [-r 5]
    python benchmarks/peers.py --quantize F16.gguf [--type Q4_K_M] [-r 3]

Both peers must be built natively from their source packages (docs/performance.md, "How to repeat"):
their system info is printed, and one without AVX-512 VNNI on a machine that has it is refused. Each
engine is a process that keeps its model loaded (peers_worker.py); they take turns, in another order
each round, so that a round's figures are taken within seconds of one another. The machine's limits
(read bandwidth, int8 rate) are measured in each round too.

Each peer runs at the best of its settings: for each model a short trial of all of them decides, for
prefill and for decoding apart; --settings names them instead (llama.cpp=default,ik_llama.cpp=rtr).
Where a peer is absent its columns are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from peers_table import Row, table

SETTINGS: dict[str, dict[str, dict[str, bool]]] = {
    "trit": {"default": {}},
    "llama.cpp": {"default": {}, "no-flash": {"flash": False}, "no-repack": {"repack": False}},
    "ik_llama.cpp": {"default": {}, "no-flash": {"flash": False}, "rtr": {"repack": True}},
}
TESTS = {"prefill": "prompt", "decode": "generate"}  # what is reported -> what a worker is asked
TRIAL = {"prefill": 128, "decode": 12}  # tokens
TRIAL_RUNS = 3
SETTLE_SECONDS = 0.03  # threads spin for some milliseconds after their work
IDLE_SHARE = 0.02  # of one core: what processes that wait may use without a warning
READ_BYTES = 1 << 31  # for the bandwidth; more than caches hold, which can be half a gigabyte


class Worker:
    """One engine's process."""

    def __init__(self, name: str, python: str, isa: str | None) -> None:
        self.name = name
        script = str(Path(__file__).with_name("peers_worker.py"))
        env = dict(os.environ)
        if isa is not None:
            env["TRIT_ISA"] = isa
        self.process = subprocess.Popen(
            [python, script, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, env=env,
        )  # fmt: skip
        self.missing = self._answer().get("missing")

    def ask(self, do: str, **what: Any) -> dict[str, Any]:
        """One request and its answer; SystemExit with the worker's words if it fails."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **what}) + "\n")
        self.process.stdin.flush()
        answer = self._answer()
        if "error" in answer:
            raise SystemExit(f"peers: {self.name}: {do}: {answer['error']}")
        return answer

    def cpu_seconds(self) -> float:
        """What its threads have used so far; 0 where the system does not say."""
        threads = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"peers: {self.name}: its process ended ({self.process.wait()})")
        answer: dict[str, Any] = json.loads(line)
        return answer


def start(options: argparse.Namespace) -> dict[str, Worker]:
    """The engines there are; what each is built for goes to stderr."""
    pythons = {"trit": sys.executable, "llama.cpp": options.llama_python or sys.executable}
    if options.ik_python:
        pythons["ik_llama.cpp"] = options.ik_python
    else:
        _say("ik_llama.cpp: left out (--ik-python PATH names the interpreter that has it)")
    cpu = Path("/proc/cpuinfo")
    machine = cpu.read_text(encoding="utf-8") if cpu.exists() else ""
    workers = {}
    for name, python in pythons.items():
        worker = Worker(name, python, options.isa if name == "trit" else None)
        if worker.missing and name != "trit":
            _say(f"{name}: left out ({worker.missing})")
            continue
        about = worker.ask("about")
        _say(f"{name} {about['version']}: {about['system']}")
        if name != "trit":
            check_build(name, about["system"], options.isa, machine)
        workers[name] = worker
    return workers


def check_build(name: str, system: str, isa: str | None, machine: str) -> None:
    """Refuse a peer that was built for less than this machine, or for more than `isa`."""
    if isa not in (None, "avx512", "amx"):
        if "AVX512 = 1" in system:
            raise SystemExit(
                f"peers: {name} uses AVX-512, but --isa is {isa}: name an interpreter whose build "
                "does not (--llama-python, --ik-python)"
            )
    elif "avx512_vnni" in machine and "AVX512_VNNI = 1" not in system:
        raise SystemExit(
            f"peers: {name} was not built for this machine: it lacks AVX-512 VNNI. "
            "Build it from its source package (docs/performance.md)"
        )


def trial(worker: Worker, load: dict[str, Any]) -> dict[str, str]:
    """The fastest setting of an engine for each test, by the better of two short runs."""
    best: dict[str, tuple[float, str]] = {}
    for name, settings in SETTINGS[worker.name].items():
        worker.ask("load", **load, **settings)
        for test, do in TESTS.items():
            seconds = min(worker.ask(do, count=TRIAL[test])["seconds"] for _ in range(TRIAL_RUNS))
            _say(f"  {worker.name} {name}: {test} {TRIAL[test] / seconds:.1f} tokens/s")
            best[test] = min(best.get(test, (seconds, name)), (seconds, name))
    return {test: name for test, (_, name) in best.items()}


def compare(workers: dict[str, Worker], model: str, options: argparse.Namespace) -> list[Row]:
    """Both tests of one model."""
    files = {name: model for name in workers} | _ik_file(workers, model, options.ik_file)
    ctx = max(options.prompt, options.generate, *TRIAL.values())
    loads = {name: {"model": file, "threads": options.threads, "ctx": ctx}
             for name, file in files.items()}  # fmt: skip
    chosen = {name: choose(worker, loads[name], options.settings)
              for name, worker in workers.items()}  # fmt: skip
    rows = []
    for test, count in (("prefill", options.prompt), ("decode", options.generate)):
        settings = {name: chosen[name][test] for name in workers}
        for name, worker in workers.items():
            known = worker.ask("load", **loads[name], **SETTINGS[name][settings[name]])
            if name == "trit":
                cost = known["decoded_bytes"] if test == "decode" else 2 * known["integer_weights"]
        row = Row(Path(model).stem, test, count, settings, cost or None)
        for number in range(options.rounds):
            measure(row, workers, number, options)
        rows.append(row)
    for worker in workers.values():
        worker.ask("free")
    return rows


def choose(worker: Worker, load: dict[str, Any], named: dict[str, str]) -> dict[str, str]:
    """The setting for each test: the one named, the only one, or the best in a trial."""
    if worker.name in named:
        return dict.fromkeys(TESTS, named[worker.name])
    if len(SETTINGS[worker.name]) == 1:
        return dict.fromkeys(TESTS, "default")
    return trial(worker, load)


def measure(row: Row, workers: dict[str, Worker], number: int, options: argparse.Namespace) -> None:
    """One round: every engine once, and the limit."""
    from trit import _core

    names = list(workers)
    turn = number % len(names)
    for name in [*names[turn:], *names[:turn]]:
        others = [each for each in workers.values() if each.name != name]
        time.sleep(SETTLE_SECONDS)
        used, begun = sum(each.cpu_seconds() for each in others), time.monotonic()
        seconds = workers[name].ask(TESTS[row.test], count=row.tokens)["seconds"]
        used = sum(each.cpu_seconds() for each in others) - used
        row.idle_share = max(row.idle_share, used / (time.monotonic() - begun))
        row.samples.setdefault(name, []).append(row.tokens / seconds)
    isa = options.isa or _core.isas()[0]
    isa = "avx512" if isa == "amx" else isa  # the limit is that of instructions, not of tiles
    if row.test == "decode":
        row.limits.append(float(_core.read_bandwidth(options.threads, READ_BYTES)))
    else:
        row.limits.append(float(_core.int8_rate(options.threads, isa)))


def quantize(workers: dict[str, Worker], options: argparse.Namespace) -> Row:
    """Whole jobs per second, trit and llama.cpp."""
    row = Row(f"{Path(options.quantize).stem} to {options.type}", "quantize", 1, {}, None)
    for _ in range(options.rounds):
        for name, worker in workers.items():
            if name != "ik_llama.cpp":
                job = {"source": options.quantize, "kind": options.type}
                took = worker.ask("quantize", **job, threads=options.threads)
                row.samples.setdefault(name, []).append(1 / took["seconds"])
    return row


def _ik_file(workers: dict[str, Worker], model: str, pairs: list[str]) -> dict[str, str]:
    """The file ik_llama.cpp is to run instead, such as one in a type of its own."""
    for pair in pairs if "ik_llama.cpp" in workers else ():
        named, _, file = pair.partition("=")
        if named in (model, Path(model).name, Path(model).stem):
            return {"ik_llama.cpp": file}
    return {}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _named_settings(text: str) -> dict[str, str]:
    """'llama.cpp=no-repack,ik_llama.cpp=rtr' as a mapping."""
    named = {}
    for part in filter(None, text.split(",")):
        engine, _, setting = part.partition("=")
        if setting not in SETTINGS.get(engine, {}):
            known = "; ".join(f"{name}={'|'.join(each)}" for name, each in SETTINGS.items())
            raise argparse.ArgumentTypeError(f"{part}: expected {known}")
        named[engine] = setting
    return named


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("models", nargs="*", metavar="MODEL.gguf")
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("-r", "--rounds", type=int, default=5)
    parser.add_argument("-p", "--prompt", type=int, default=256, metavar="TOKENS")
    parser.add_argument("-n", "--generate", type=int, default=32, metavar="TOKENS")
    parser.add_argument("--llama-python", metavar="PATH", help="interpreter that has llama_cpp")
    parser.add_argument("--ik-python", metavar="PATH", help="interpreter that has ik_llama_cpp")
    parser.add_argument("--ik-file", metavar="MODEL=FILE", action="append", default=[],
                        help="ik_llama.cpp runs FILE where the others run MODEL")  # fmt: skip
    parser.add_argument("--isa", help="trit's instruction set; the peers must be built for it")
    parser.add_argument("--settings", type=_named_settings, default={}, metavar="ENGINE=NAME,…",
                        help="no trial: run the peers so")  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure here too")
    parser.add_argument("--quantize", metavar="F16.gguf")
    parser.add_argument("--type", default="Q4_K_M")
    return parser.parse_args()


def main() -> None:
    options = parse()
    workers = start(options)
    about = {name: worker.ask("about") for name, worker in workers.items()}
    rows: list[Row] = []
    for model in options.models:
        rows += compare(workers, model, options)
    if options.quantize:
        rows.append(quantize(workers, options))
    from trit.evaluate._machine import cpu_name

    print(f"{cpu_name()}, {options.threads} threads, {options.rounds} rounds\n")
    print(table(rows))
    for row in rows:
        _say(f"{row.model} {row.test}: " + ", ".join(f"{e}={s}" for e, s in row.settings.items()))
        if row.idle_share > IDLE_SHARE:
            _say(f"  warning: waiting engines used {100 * row.idle_share:.0f}% of a core")
    if options.json:
        made = {"cpu": cpu_name(), "threads": options.threads, "isa": options.isa,
                "engines": about, "rows": [row.to_dict() for row in rows]}  # fmt: skip
        options.json.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
