"""Does `trit serve` gain by company, keep its answers and its memory, and say nothing undocumented?

    python benchmarks/serving.py [MODEL] [--requests 300] [--clients 64] [--llama-server PATH]

MODEL: a name of the zoo or a file; without, smollm2-135m-instruct. The server is a process with
--parallel slots:

    abuse        `requests` of `clients` at a time (serving_abuse.py): prompts of 50 to 1,000
                 tokens, 30% leave, 10% make no sense; the others are seeded, and each answer is
                 compared with the one that it got alone. Resident memory after every tenth of them
    freed        how long after all have left in mid-stream nothing is answered any more
    first token  behind a prefix of some 2,000 tokens, unknown and known
    throughput   questions of one client and of `parallel`, in pairs whose order alternates; tokens
                 written per second of the whole, the median of the ratios. With llama.cpp's server,
                 of the same file, threads and slots, that one takes turns with ours

Prints JSON. The exit code is 1 for an answer that differs or does not come, a code word of another
conversation, and a status that is none of those below 500 but 503.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from serving_abuse import abuse, ask, first_tokens, freed, question

from trit import zoo
from trit.evaluate._machine import build_commit, cpu_name

PREFIX = 8000  # characters, some 2,000 tokens


@contextmanager
def server(model: str, parallel: int, threads: int) -> Iterator[tuple[int, int]]:
    """trit's port and process id."""
    command = [sys.executable, "-m", "trit", "serve", model, "--port", "0", "-np", str(parallel)]
    process = subprocess.Popen([*command, "-t", str(threads)], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        found = next(
            match
            for line in iter(process.stderr.readline, "")
            if (match := re.search(r"listening on http://[^ ]*:(\d+),", line))
        )
        port = int(found[1])
        _wait(port)
        yield port, process.pid
    finally:
        process.terminate()
        process.communicate()


@contextmanager
def llama_server(
    program: str, model: Path, parallel: int, threads: int, port: int
) -> Iterator[int]:
    """The port of llama.cpp's server: each slot has 2,048 tokens of context, flash attention on."""
    command = [
        program, "-m", str(model), "--port", str(port), "-np", str(parallel), "-t", str(threads),
        "-c", str(2048 * parallel), "-fa", "on", "--no-webui",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(port)
        yield port
    finally:
        process.terminate()
        process.wait()


def _wait(port: int) -> None:
    """Until /health says 200."""
    while True:
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.2)


def resident(pid: int) -> int:
    """Bytes that are the process's own, without pages of files (Linux)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(re.search(r"RssAnon:\s+(\d+)", status)[1])  # type: ignore[index]


def throughput(ports: Mapping[str, int], clients: int, tokens: int, pairs: int) -> dict[str, Any]:
    """Tokens written per second by one client and by `clients`, of each server in turn."""
    runs = [(name, count) for name in ports for count in (1, clients)]
    rates: dict[tuple[str, int], list[float]] = {run: [] for run in runs}
    number = 10_000  # questions that nothing of is in the cache
    for pair in range(pairs):
        for name, count in runs if pair % 2 else reversed(runs):
            asked = [question(number + i, tokens) for i in range(2 * clients)]
            number += len(asked)
            begun = time.perf_counter()
            with ThreadPoolExecutor(count) as pool:
                answers = list(pool.map(lambda body, at=ports[name]: ask(at, body)[1], asked))
            written = sum(answer["usage"]["completion_tokens"] for answer in answers)
            rates[name, count].append(written / (time.perf_counter() - begun))
    found: dict[str, Any] = {
        name: {str(count): [round(x, 1) for x in rates[name, count]] for count in (1, clients)}
        for name in ports
    }
    found["many_over_one"] = _median_ratio(rates["trit", clients], rates["trit", 1])
    for name in ports:
        if name != "trit":
            for count in (1, clients):
                ratio = _median_ratio(rates["trit", count], rates[name, count])
                found[f"trit over {name}, {count}"] = ratio
    return found


def _median_ratio(ours: list[float], theirs: list[float]) -> float:
    return round(statistics.median(a / b for a, b in zip(ours, theirs, strict=True)), 2)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?", default="smollm2-135m-instruct")
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--parallel", type=int, default=8)
    parser.add_argument("--prompts", type=int, default=100, help="different ones in the abuse")
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--llama-server", metavar="PATH")
    given = parser.parse_args()
    answer: dict[str, Any] = {"model": given.model, "cpu": cpu_name(), "commit": build_commit()}
    with ExitStack() as stack:
        port, pid = stack.enter_context(server(given.model, given.parallel, given.threads))
        if given.requests:
            answer["abuse"] = abuse(
                port, lambda: resident(pid), given.clients, given.tokens, given.requests,
                given.prompts,
            )  # fmt: skip
        answer["freed"] = freed(port, given.parallel, given.tokens)
        answer["first_token"] = first_tokens(port, PREFIX, given.pairs)
        ports = {"trit": port}
        if given.llama_server:
            path = zoo.resolve(given.model)
            ports["llama.cpp"] = stack.enter_context(
                llama_server(given.llama_server, path, given.parallel, given.threads, port + 1)
            )
        answer["throughput"] = throughput(ports, given.parallel, given.tokens, given.pairs)
    print(json.dumps(answer, indent=2))
    return int(bad(answer.get("abuse", {})))


def bad(found: Mapping[str, Any]) -> bool:
    """Whether anything happened that must not."""
    statuses = {int(each.rpartition(" ")[2]) for each in found.get("statuses", {})}
    undocumented = {status for status in statuses if status >= 500 and status != 503}
    return bool(found.get("differ") or found.get("foreign") or undocumented)


if __name__ == "__main__":
    sys.exit(main())
