"""Does `trit serve` gain by company, keep its answers and its memory, and say nothing undocumented?

    python benchmarks/serving.py [--requests 300] [--clients 8] [--pairs 4] [--tokens 48] [MODEL]

MODEL: a name of the zoo or a file; without, smollm2-135m-instruct. The server is a process:

    throughput   questions of one kind, no two the same, of one client and of `clients`, in pairs
                 whose order alternates; tokens per second of the whole, the median of the ratios
    abuse        `requests` of `clients` at a time: 30% leave in the middle, 10% are malformed; the
                 others are seeded, and each answer is compared with the one that it got alone.
                 Resident memory after every tenth of them

Prints JSON. The exit code is 1 for an answer that differs or does not come, and for a status that
is not documented.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from trit.evaluate._machine import build_commit, cpu_name

CHAT = "/v1/chat/completions"
LEAVE, MALFORMED = 0.3, 0.1
DISTINCT = 24  # seeded questions
DOCUMENTED = {200, 400, 503}
TOPICS = ("a lighthouse", "the water cycle", "hash maps", "bread", "violins", "trains")


def question(number: int, tokens: int) -> dict[str, Any]:
    """Seeded; no two begin alike behind the template's own text."""
    topic = TOPICS[number % len(TOPICS)]
    content = f"{number * 7919} times I asked: write about {topic}."
    return {
        "messages": [{"role": "user", "content": content}],
        "max_tokens": tokens,
        "temperature": 0.8,
        "seed": number,
    }


def ask(port: int, body: object) -> tuple[int, dict[str, Any]]:
    connection = HTTPConnection("127.0.0.1", port, timeout=600)
    try:
        connection.request("POST", CHAT, json.dumps(body))
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def leave(port: int, body: dict[str, Any]) -> None:
    """Ask for a stream, and go in the middle of it."""
    connection = HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request("POST", CHAT, json.dumps({**body, "stream": True, "max_tokens": 2000}))
    connection.getresponse().read(1000)
    connection.close()


@contextmanager
def server(model: str, clients: int) -> Iterator[tuple[int, int]]:
    """Its port and process id."""
    command = [sys.executable, "-m", "trit", "serve", model, "--port", "0", "-np", str(clients)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        found = next(
            match
            for line in iter(process.stderr.readline, "")
            if (match := re.search(r"listening on http://[^ ]*:(\d+),", line))
        )
        port = int(found[1])
        while ask(port, question(0, 1))[0] == 503:
            time.sleep(0.2)
        yield port, process.pid
    finally:
        process.terminate()
        process.communicate()


def resident(pid: int) -> int:
    """Bytes that are the process's own, without pages of files (Linux)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(re.search(r"RssAnon:\s+(\d+)", status)[1])  # type: ignore[index]


def throughput(port: int, clients: int, tokens: int, pairs: int) -> dict[str, Any]:
    rates: dict[int, list[float]] = {1: [], clients: []}
    number = 10_000  # questions that nothing of is in the cache
    for pair in range(pairs):
        for count in sorted(rates, reverse=pair % 2 == 1):
            asked = [question(number + i, tokens) for i in range(2 * clients)]
            number += len(asked)
            begun = time.perf_counter()
            with ThreadPoolExecutor(count) as pool:
                answers = list(pool.map(lambda body: ask(port, body)[1], asked))
            written = sum(answer["usage"]["completion_tokens"] for answer in answers)
            rates[count].append(written / (time.perf_counter() - begun))
    ratios = [many / one for one, many in zip(rates[1], rates[clients], strict=True)]
    return {
        "one_tps": [round(rate, 1) for rate in rates[1]],
        "many_tps": [round(rate, 1) for rate in rates[clients]],
        "ratios": [round(ratio, 2) for ratio in ratios],
        "ratio_median": round(statistics.median(ratios), 2),
    }


def abuse(port: int, pid: int, clients: int, tokens: int, requests: int) -> dict[str, Any]:
    alone = [ask(port, question(i, tokens))[1]["choices"] for i in range(DISTINCT)]
    kinds = random.Random(1)
    plan = [(kinds.random(), i % DISTINCT) for i in range(requests)]
    statuses: Counter[int] = Counter()
    differ = 0

    def one(step: tuple[float, int]) -> tuple[int, bool]:
        kind, number = step
        body = question(number, tokens)
        if kind < LEAVE:
            leave(port, body)
            return 0, True
        if kind < LEAVE + MALFORMED:
            return ask(port, {**body, "temperature": "hot"})[0], True
        status, answer = ask(port, body)
        return status, status == 200 and answer["choices"] == alone[number]

    memory = [resident(pid)]
    with ThreadPoolExecutor(clients) as pool:
        for part in _tenths(plan):
            for status, same in pool.map(one, part):
                statuses[status] += 1
                differ += not same
            memory.append(resident(pid))
    return {
        "requests": requests,
        "statuses": dict(statuses),
        "differ": differ,
        "resident_mib": [round(bytes_ / 2**20, 1) for bytes_ in memory],
    }


def _tenths(plan: Sequence[Any]) -> Iterator[Sequence[Any]]:
    size = -(-len(plan) // 10)
    for first in range(0, len(plan), size):
        yield plan[first : first + size]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?", default="smollm2-135m-instruct")
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=48)
    given = parser.parse_args()
    with server(given.model, given.clients) as (port, pid):
        found = abuse(port, pid, given.clients, given.tokens, given.requests)
        speed = throughput(port, given.clients, given.tokens, given.pairs)
    answer = {
        "model": given.model,
        "cpu": cpu_name(),
        "commit": build_commit(),
        "clients": given.clients,
        "abuse": found,
        "throughput": speed,
    }
    print(json.dumps(answer, indent=2))
    undocumented = set(found["statuses"]) - DOCUMENTED - {0}
    return int(bool(found["differ"] or undocumented))


if __name__ == "__main__":
    sys.exit(main())
