"""Counters in Prometheus's text format (prometheus.io/docs/instrumenting/exposition_formats)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from trit.runtime.generate import Stats

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)  # seconds


class Metrics:
    """What a server has done since it began. For one event loop."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, int]] = Counter()
        self._tokens: Counter[str] = Counter()
        self._first = [0] * (len(_BOUNDS) + 1)
        self._first_sum = 0.0

    def count_request(self, path: str, status: int) -> None:
        """`path` is a route, of which there are few."""
        self._requests[path, status] += 1

    def count_answer(self, stats: Stats) -> None:
        """An answer that has ended."""
        self._tokens["prompt"] += stats.prompt_tokens
        self._tokens["cached_prompt"] += stats.cached_tokens
        self._tokens["generated"] += stats.tokens
        place = sum(stats.prompt_seconds > bound for bound in _BOUNDS)
        self._first[place] += 1
        self._first_sum += stats.prompt_seconds

    def text(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """All of it; `gauges` by name: what it is, and its value now."""
        lines = _header("trit_requests_total", "counter", "Requests by route and status.")
        for (path, status), count in sorted(self._requests.items()):
            lines.append(f'trit_requests_total{{path="{path}",status="{status}"}} {count}')
        for kind in ("prompt", "cached_prompt", "generated"):
            name = f"trit_{kind}_tokens_total"
            lines += _header(name, "counter", f"Tokens of ended answers: {kind}.")
            lines.append(f"{name} {self._tokens[kind]}")
        for name, (about, value) in gauges.items():
            lines += [*_header(name, "gauge", about), f"{name} {value:g}"]
        return "\n".join([*lines, *self._histogram(), ""])

    def _histogram(self) -> Iterable[str]:
        name = "trit_first_token_seconds"
        yield from _header(name, "histogram", "From a request to its first token.")
        total = 0
        for bound, count in zip((*_BOUNDS, "+Inf"), self._first, strict=True):
            total += count
            yield f'{name}_bucket{{le="{bound}"}} {total}'
        yield f"{name}_sum {self._first_sum:.6f}"
        yield f"{name}_count {total}"


def _header(name: str, kind: str, about: str) -> list[str]:
    return [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
