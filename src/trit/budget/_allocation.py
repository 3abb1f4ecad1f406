"""From a budget and sensitivities to a format for every tensor, and to a job that writes them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trit import formats
from trit.budget._sensitivity import Sensitivities, kind
from trit.budget._solver import ImpossibleError, Option, Solution, frontier, solve
from trit.budget._target import Target
from trit.calibrate import plan_for
from trit.errors import UsageError
from trit.files._encode import draw
from trit.files._header import DEFAULT_ALIGNMENT
from trit.files.gguf import Plain, TensorInfo, Value
from trit.files.source import Source
from trit.recipe import Choice
from trit.runtime.needs import needs

ALIGNMENT = 32
THREADS = 16  # whose scratch --fit-ram leaves room for: here as there the same file
ROUNDS = 20  # of finding out how long the header is
AROUND = (0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5)  # of the size chosen, for the frontier

# What llama.cpp calls a file by the format of most of its weights (its LLAMA_FTYPE).
FILE_TYPES = {
    "f16": 1,
    "q4_0": 2,
    "q4_1": 3,
    "q8_0": 7,
    "q5_0": 8,
    "q5_1": 9,
    "q2_k": 10,
    "q3_k": 12,
    "q4_k": 15,
    "q5_k": 17,
    "q6_k": 18,
    "iq2_xxs": 19,
    "iq2_xs": 20,
    "iq3_xxs": 23,
    "iq1_s": 24,
    "iq4_nl": 25,
    "iq3_s": 26,
    "iq2_s": 28,
    "iq4_xs": 30,
    "iq1_m": 31,
}


@dataclass(frozen=True)
class Point:
    """A file that could be: its bytes, bits per weight, and predicted divergence."""

    bytes: int
    bits_per_weight: float
    kld: float


@dataclass(frozen=True)
class Allocation:
    """The formats chosen, and what they were chosen by.

    kld        predicted for the whole file, nats per token
    optimal    no other choice that fits is predicted to lose less
    frontier   the best files of other sizes
    tensors    by name: `format`, `kld` predicted for it, `share` of the whole; `smaller` and
               `larger`: the neighbouring choices with their bytes and divergence
    """

    target: Target
    kld: float
    optimal: bool
    smallest: int
    largest: int
    frontier: tuple[Point, ...]
    tensors: dict[str, dict[str, Any]]
    formats: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "target": self.target.to_dict(),
            "predicted_kld": self.kld,
            "optimal": self.optimal,
            "smallest_bytes": self.smallest,
            "largest_bytes": self.largest,
            "frontier": [
                {"bytes": p.bytes, "bits_per_weight": p.bits_per_weight, "predicted_kld": p.kld}
                for p in self.frontier
            ],
            "allocation": self.tensors,
        }


class Sizes:
    """What the file and its parts take: `tensors` in the order of the file, `menus` of those
    that have a choice, `values(formats)` the header's keys for an allocation."""

    def __init__(
        self,
        source: Source,
        kept: Mapping[str, str],
        menus: Mapping[str, Sequence[str]],
        values: Callable[[Mapping[str, str]], dict[str, Plain | Value]],
    ) -> None:
        self._source, self._kept, self._values = source, kept, values
        self.menus = menus
        self.weights = sum(t.rows * t.cols for t in source.tensors.values())

    def info(self, name: str, format: str) -> TensorInfo:
        return TensorInfo(name, self._source.tensors[name].shape, formats.get(format))

    def infos(self, chosen: Mapping[str, str]) -> list[TensorInfo]:
        all_ = {**self._kept, **chosen}
        return [self.info(name, all_[name]) for name in self._source.tensors]

    def file_bytes(self, chosen: Mapping[str, str]) -> int:
        """To the byte, header and padding included."""
        return draw(self._values(chosen), self.infos(chosen)).size

    def tensor_bytes(self, chosen: Mapping[str, str]) -> int:
        """Without header and padding."""
        return sum(info.nbytes for info in self.infos(chosen))

    def extreme(self, largest: bool) -> dict[str, str]:
        """The smallest or the largest choice of each tensor."""
        pick = max if largest else min
        return {
            name: pick(menu, key=lambda f, n=name: self.info(n, f).nbytes)  # type: ignore[misc]
            for name, menu in self.menus.items()
        }

    def smallest(self) -> int:
        """Bytes that are enough, however many digits the budget has that the header names."""
        return self.file_bytes(self.extreme(False)) + DEFAULT_ALIGNMENT


def limit_of(target: Target, sizes: Sizes, source: Source) -> tuple[int, bool]:
    """The bytes that a target allows, and whether they are the file's or the tensors' alone.

    UsageError where even the smallest choice takes more.
    """
    smallest = sizes.extreme(False)
    if target.kind == "bpw":
        limit, file = int(target.value * sizes.weights / 8), False
    elif target.kind == "fit_ram":
        plan = plan_for(source)
        ctx = target.ctx or plan.context_length
        plan = plan_for(source, ctx)
        taken = needs(plan, 0, ctx, metadata=source.metadata, threads=THREADS).total
        limit, file = int(target.value) - taken, True
    else:
        limit, file = int(target.value), True
    least = sizes.file_bytes(smallest) if file else sizes.tensor_bytes(smallest)
    if limit < least:
        raise UsageError(_impossible(target, sizes, limit))
    return limit, file


def _impossible(target: Target, sizes: Sizes, limit: int) -> str:
    low, high = sizes.extreme(False), sizes.extreme(True)
    small, large = sizes.smallest(), sizes.file_bytes(high)
    least = 8 * sizes.tensor_bytes(low) / sizes.weights
    most = 8 * sizes.tensor_bytes(high) / sizes.weights
    flag = f"--{target.kind.replace('_', '-')}"
    asked = f"{flag} {target.value:g}"
    if target.kind == "fit":
        asked = f"{flag}: {limit:,} bytes are asked for, which"
    elif target.kind == "fit_ram":
        beside = int(target.value) - limit
        asked = (
            f"{flag}: {int(target.value):,} bytes less {beside:,} for the keys and values of the "
            f"context and the work itself leave {max(limit, 0):,} for the file, which"
        )
    return (
        f"{asked} is less than this model can be made: the smallest file has {small:,} bytes "
        f"({least:.3f} bits per weight), the largest that makes sense {large:,} ({most:.3f})."
    )


def allocate(
    target: Target, sizes: Sizes, known: Sensitivities, limit: tuple[int, bool] | None
) -> Allocation:
    """The formats of least predicted loss within `limit` (of limit_of), or, without one, the
    smallest that stay below `target.value` nats."""
    names = list(sizes.menus)
    items = [
        [Option(_padded(sizes.info(n, f)), known.cost(n, f)) for f in sizes.menus[n]] for n in names
    ]

    def chosen(solution: Solution) -> dict[str, str]:
        return {n: sizes.menus[n][i] for n, i in zip(names, solution.chosen, strict=True)}

    if limit is None:
        solution = _smallest_below(target, known, items, sizes)
    else:
        solution = _within(items, chosen, sizes, *limit)
    made = chosen(solution)
    optimal = solution.bound >= solution.cost * (1 - 1e-9)
    return Allocation(
        target=target,
        kld=known.predicted(solution.cost),
        optimal=optimal,
        smallest=sizes.smallest(),
        largest=sizes.file_bytes(sizes.extreme(True)),
        frontier=tuple(_points(items, known, sizes, solution, made)),
        tensors=_reasons(names, items, solution, sizes, made, known),
        formats=made,
    )


def _padded(info: TensorInfo) -> int:
    return -(-info.nbytes // ALIGNMENT) * ALIGNMENT


def _within(
    items: Sequence[Sequence[Option]],
    chosen: Callable[[Solution], dict[str, str]],
    sizes: Sizes,
    limit: int,
    file: bool,
) -> Solution:
    """The best choice whose file (or tensors) has at most `limit` bytes.

    The header names the choice, so its length depends on it: what it takes is found by trying.
    """
    measure = sizes.file_bytes if file else sizes.tensor_bytes
    lowest = [_smallest(options) for options in items]
    least = _solution(items, lowest)
    beside = measure(chosen(least)) - least.size
    best: Solution | None = None
    tried: set[int] = set()
    for _ in range(ROUNDS):
        if beside in tried:
            beside += ALIGNMENT
        tried.add(beside)
        try:
            solution = solve(items, limit - beside)
        except ImpossibleError:
            break
        actual = measure(chosen(solution))
        if actual <= limit:
            if best is None or solution.cost < best.cost:
                best = solution
            if actual - solution.size >= beside:
                break
        beside = actual - solution.size
    if best is None:
        best = least
    return best


def _smallest(options: Sequence[Option]) -> int:
    return min(range(len(options)), key=lambda index: options[index].size)


def _solution(items: Sequence[Sequence[Option]], chosen: Sequence[int]) -> Solution:
    """What these options give, the only ones there are."""
    picked = [options[index] for options, index in zip(items, chosen, strict=True)]
    cost = sum(each.cost for each in picked)
    return Solution(tuple(chosen), sum(each.size for each in picked), cost, cost)


def _smallest_below(
    target: Target, known: Sensitivities, items: Sequence[Sequence[Option]], sizes: Sizes
) -> Solution:
    """The smallest choice that is predicted to lose at most `target.value`."""
    low = sum(min(o.size for o in options) for options in items)
    high = sum(max(o.size for o in options) for options in items)
    best = solve(items, high)
    if known.predicted(best.cost) > target.value:
        large = sizes.file_bytes(sizes.extreme(True))
        raise UsageError(
            f"--max-kld {target.value:g}: even the largest file that makes sense, {large:,} bytes, "
            f"is predicted to lose {known.predicted(best.cost):.2g} nats per token."
        )
    while high - low > ALIGNMENT:
        middle = (low + high) // 2
        solution = solve(items, middle)
        if known.predicted(solution.cost) <= target.value:
            best, high = solution, min(middle, solution.size)
        else:
            low = middle
    return best


def _points(
    items: Sequence[Sequence[Option]],
    known: Sensitivities,
    sizes: Sizes,
    solution: Solution,
    made: Mapping[str, str],
) -> list[Point]:
    """The best files at some sizes around the one chosen, itself left out."""
    size = sizes.file_bytes(made)
    beside = size - solution.size  # the header, and tensors without a choice
    kept = sizes.tensor_bytes(made) - solution.size  # of it what bits per weight count
    curve = frontier(items)
    found: list[Point] = []
    for share in AROUND:
        fits = [point for point in curve if point[0] + beside <= size * share]
        if share == 1.0 or not fits or fits[-1][0] == solution.size:
            continue
        bytes_, cost = fits[-1]
        bits = 8 * (bytes_ + kept) / sizes.weights
        point = Point(bytes_ + beside, bits, known.predicted(cost))
        if point not in found:
            found.append(point)
    return found


def _reasons(
    names: Sequence[str],
    items: Sequence[Sequence[Option]],
    solution: Solution,
    sizes: Sizes,
    made: Mapping[str, str],
    known: Sensitivities,
) -> dict[str, dict[str, Any]]:
    """Of every tensor: what it loses, and what its neighbours in size would."""
    total = solution.cost or 1.0
    found = {}
    for name, options, index in zip(names, items, solution.chosen, strict=True):
        menu, here = sizes.menus[name], options[index]
        smaller = [i for i, o in enumerate(options) if o.size < here.size]
        larger = [i for i, o in enumerate(options) if o.size > here.size and o.cost < here.cost]
        below = min(smaller, key=lambda i: options[i].cost, default=None)
        above = min(larger, key=lambda i: options[i].size, default=None)
        found[name] = {
            "kind": kind(name),
            "format": made[name],
            "bytes": here.size,
            "predicted_kld": here.cost,
            "share": here.cost / total,
            "measured": "kld" in known.tensors[name],
            "smaller": _neighbour(menu, options, below),
            "larger": _neighbour(menu, options, above),
        }
    return found


def _neighbour(
    menu: Sequence[str], options: Sequence[Option], index: int | None
) -> dict[str, Any] | None:
    if index is None:
        return None
    option = options[index]
    return {"format": menu[index], "bytes": option.size, "predicted_kld": option.cost}


def choices(source: Source, kept: Mapping[str, str], made: Mapping[str, str]) -> list[Choice]:
    """One per tensor, in the order of the source."""
    return [Choice(name, {**kept, **made}[name]) for name in source.tensors]


def commonest(source: Source, made: Mapping[str, str]) -> str:
    """The format of most weights among those chosen."""
    weights: Counter[str] = Counter()
    for name, format in made.items():
        tensor = source.tensors[name]
        weights[format] += tensor.rows * tensor.cols
    return weights.most_common(1)[0][0]


def recipe_text(target: Target, made: Mapping[str, str], extra: Mapping[str, object]) -> str:
    """What the file says of how it was made, JSON."""
    types: dict[str, list[str]] = {}
    for name, format in made.items():
        types.setdefault(format, []).append(name)
    return json.dumps({"budget": target.to_dict(), "types": types, **extra}, sort_keys=True)
