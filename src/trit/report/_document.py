"""A report as a document: headings, sentences, tables, pictures, for any form to be written in."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from trit.evaluate import Estimate
from trit.evaluate.tasks import Metric
from trit.pictures import bits, pareto
from trit.report._choice import decoding
from trit.report._figures import Figures, Rate, Report

CERTAIN = 1.96  # standard errors of a 95% interval
NONE = "–"
HUGE = 1e5


@dataclass(frozen=True)
class Heading:
    """Of a section."""

    text: str


@dataclass(frozen=True)
class Words:
    """A paragraph; `strong` for what is to be read first."""

    text: str
    strong: bool = False


@dataclass(frozen=True)
class Items:
    """A list."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Rows under a head; the first column is text, the others figures. `marked`: a row to show."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    marked: int | None = None


@dataclass(frozen=True)
class Picture:
    """A figure of matplotlib, made when it is drawn; `name` is unlike all others of the report."""

    name: str
    alt: str
    draw: Callable[[], Any]
    wide: bool = False


Block = Heading | Words | Items | Table | Picture


def document(found: Report) -> Iterator[Block]:
    """The blocks of a report, in order."""
    yield Heading("Which to take")
    for number, words in enumerate(found.words):
        yield Words(words, strong=number == 0 and found.chosen is not None)
    yield Heading("Size, quality, speed")
    yield _table(found)
    yield Words(_legend(found))
    if any(model.tasks for model in found.models):
        yield Heading("Tasks")
        yield from _tasks(found)
    yield Heading("What it costs to be smaller")
    yield from _frontiers(found)
    yield Heading("Where the bits went")
    yield Words("Each matrix by its layer and kind, coloured by bits per weight; bars are sizes.")
    yield from (_bits(model, number) for number, model in enumerate(found.models))
    yield Heading("How it was measured")
    yield Items(tuple(_how(found)))
    yield Heading("Read this before you quote it")
    yield Items(tuple(_caveats(found)))


def _table(found: Report) -> Table:
    tests = [rate.test for rate in found.models[0].rates]
    speeds = [f"{test}, t/s" for test in tests]
    head = ("file", "MiB", "bits", "PPL", "ln ratio", "KLD", "KLD 99%", "same top, %", *speeds,
            "memory, MiB")  # fmt: skip
    rows = tuple(_row(model) for model in found.models)
    marked = [i for i, model in enumerate(found.models) if model.label == found.chosen]
    return Table(head, rows, marked[0] if marked else None)


def _row(model: Figures) -> tuple[str, ...]:
    known = model.quality
    card = "*" if known is not None and known.basis == "card" else ""
    quality = (NONE,) * 5
    if known is not None:
        quality = (
            plus_minus(known.ppl, 2),
            plus_minus(known.ln_ratio, 4),
            plus_minus(known.kld, 4) + card,
            NONE if known.kld_p99 is None else f"{known.kld_p99:.3f}",
            plus_minus(known.same_top, 1, 100) + card,
        )
    return (
        f"{model.label} (reference)" if model.is_reference else model.label,
        f"{model.bytes / 2**20:,.1f}",
        f"{model.bits_per_weight:.2f}",
        *quality,
        *(_rate(rate) for rate in model.rates),
        NONE if model.memory is None else f"{model.memory / 2**20:,.0f}",
    )


def plus_minus(value: Estimate | None, digits: int, factor: float = 1.0) -> str:
    """'0.0292 ± 0.0004', or a dash."""
    if value is None:
        return NONE
    if abs(value.mean) >= HUGE:  # of a model that has lost its mind
        return f"{factor * value.mean:.3g} ± {factor * value.stderr:.1g}"
    return f"{factor * value.mean:.{digits}f} ± {factor * value.stderr:.{digits}f}"


def _rate(rate: Rate) -> str:
    low, high = rate.spread
    if len(rate.samples) == 1:
        return f"{rate.median:.1f}"
    return f"{rate.median:.1f} ({low:.1f} … {high:.1f})"


def _legend(found: Report) -> str:
    parts = ["± are standard errors over the tokens of the text."]
    if found.reference is not None:
        parts.append(
            f"KLD is the mean KL divergence from {found.reference} in nats per token, KLD 99% what "
            "one token in a hundred exceeds; ln ratio is ln(PPL / PPL of the reference)."
        )
    if any(m.quality is not None and m.quality.basis == "card" for m in found.models):
        parts.append("*: from the file's own quality card, of the card's text, not measured here.")
    if found.models[0].rates:
        parts.append(
            f"Tokens per second: median of {found.rounds} rounds (slowest … fastest), in each of "
            "which every file ran once. Memory is that of the process with the model, after that."
        )
    return " ".join(parts)


def _tasks(found: Report) -> Iterator[Block]:
    first = found.models[0].tasks
    columns = [
        (i, j) for i, task in enumerate(first) for j, m in enumerate(task.metrics)
        if m.name != "acc_bytes"
    ]  # fmt: skip
    head = ("file", *(f"{first[i].task} {first[i].metrics[j].name}" for i, j in columns))
    rows = tuple(
        (model.label, *(_score(model.tasks[i].metrics[j]) for i, j in columns))
        for model in found.models
    )
    yield Table(head, rows)
    counts = ", ".join(f"{t.task} {t.questions:,} of {t.total:,}" for t in first)
    yield Words(
        f"Accuracies in per cent by lm-evaluation-harness's definitions, without examples; "
        f"questions: {counts}. ± are standard errors over the questions."
    )
    if found.reference is not None:
        rows = tuple(
            (model.label, *(_change(model.tasks[i].metrics[j]) for i, j in columns))
            for model in found.models
            if not model.is_reference
        )
        yield Words(f"Change from {found.reference}, of the same questions, with 95%:")
        yield Table(head, rows)


def _score(metric: Metric) -> str:
    if metric.name == "perplexity":
        return plus_minus(metric.value, 2)
    return plus_minus(metric.value, 1, 100)


def _change(metric: Metric) -> str:
    if metric.change is None:
        return NONE
    parts = metric.change.value, metric.change.low, metric.change.high
    if metric.name == "perplexity":
        return "×{:.2f} ({:.2f} … {:.2f})".format(*parts)
    return "{:+.1f} ({:+.1f} … {:+.1f})".format(*(100 * part for part in parts))


def _frontiers(found: Report) -> Iterator[Block]:
    names = {model.label: _short(found, model) for model in found.models}
    points = [
        point for m in found.models if (point := _quality_point(m, names[m.label])) is not None
    ]
    if len(points) > 1:
        yield Picture(
            "kld", "KL divergence against size",
            lambda: pareto.figure(
                points, "What is lost", "mean KL divergence, nats per token", less_is_better=True,
                log=all(point.low > 0 for point in points), bars="95%",
            ),
        )  # fmt: skip
    speeds = [point for m in found.models if (point := _speed_point(m, names[m.label])) is not None]
    if len(speeds) > 1:
        yield Picture(
            "speed", "tokens per second against size",
            lambda: pareto.figure(
                speeds, "What is won", "tokens per second, generating", less_is_better=False,
                log=False, bars="slowest to fastest round",
            ),
        )  # fmt: skip
    if len(points) < 2 and len(speeds) < 2:
        yield Words("There are not two files with a figure to compare.")
    else:
        yield Words(
            "A filled point is on the frontier: no other file is smaller and better. The reference "
            "loses nothing against itself and has no place on a log axis."
        )


def _short(found: Report, model: Figures) -> str:
    """Its label without what all of them begin with, which is the title."""
    return model.label.removeprefix(found.title).lstrip("-_. ") or model.label


def _quality_point(model: Figures, name: str) -> pareto.Point | None:
    known = None if model.quality is None else model.quality.kld
    if known is None or known.mean <= 0:
        return None
    reach = CERTAIN * known.stderr
    low = known.mean - reach if known.mean > reach else known.mean * math.exp(-reach / known.mean)
    return pareto.Point(name, model.bytes, known.mean, low, known.mean + reach)


def _speed_point(model: Figures, name: str) -> pareto.Point | None:
    median = decoding(model)
    if median is None:
        return None
    low, high = next(rate for rate in model.rates if rate.test.startswith("tg")).spread
    return pareto.Point(name, model.bytes, median, low, high)


def _bits(model: Figures, number: int) -> Picture:
    title = f"{model.label}: {model.bits_per_weight:.2f} bits per weight, "
    title += f"{model.bytes / 2**20:,.1f} MiB"
    return Picture(
        f"bits-{number}", f"bits per weight of each tensor of {model.label}",
        lambda: bits.figure(model.grid, title), wide=True,
    )  # fmt: skip


def _how(found: Report) -> Iterator[str]:
    machine, text = found.machine, found.text
    yield (
        f"Machine: {machine.cpu}, {machine.isa}, {found.threads} of {machine.processors} "
        f"processors used; {_size(machine.memory_total)} of memory; {machine.system}."
    )
    if machine.read_bytes_per_second and machine.int8_ops_per_second:
        read, products = machine.read_bytes_per_second, machine.int8_ops_per_second
        yield (
            f"Its limits, measured as the report was written: {read / 1e9:.0f} GB/s read from "
            f"memory, {products / 1e9:.0f} G int8 operations/s."
        )
    windows = "all windows" if text.chunks is None else f"{text.chunks} windows"
    tokens = {m.quality.tokens for m in found.models if m.quality is not None}
    counts = " or ".join(f"{count:,}" for count in sorted(tokens))
    yield (
        f"Text: {text.name} ({text.bytes:,} bytes, sha256 {text.sha256[:16]}…), {windows} of "
        f"{text.ctx} tokens, the second half of each scored: {counts} tokens."
    )
    for task in found.models[0].tasks:
        yield f"{task.task}: sha256 {task.sha256[:16]}…, {task.questions:,} questions."
    for model in found.models:
        recipe = "" if model.recipe is None else f", made as {model.recipe}"
        when = "; ".join(model.measured_at) or "not measured"
        types = ", ".join(model.types)
        yield f"{model.label}: {types}{recipe}; measured by trit {when}."
    yield f"Written by trit {machine.versions['trit']} at {found.written}."
    if found.command:
        yield f"To repeat it: {found.command}"


def _size(count: int | None) -> str:
    return "an unknown size" if count is None else f"{count / 2**30:.1f} GiB"


def _caveats(found: Report) -> Iterator[str]:
    tokens = [m.quality.tokens for m in found.models if m.quality is not None]
    if tokens:
        yield (
            f"Quality is of one text and {min(tokens):,} scored tokens: another text gives other "
            "figures, and files are compared by it, not models of other families."
        )
    yield "Intervals are over tokens or questions of these files, not over texts or models."
    if found.models[0].rates:
        yield (
            "Speed is of this machine at that time; what else ran on it is in the figures. Compare "
            "the files of one report with each other."
        )
    if any(model.busy for model in found.models):
        yield "Other programs computed during the speed tests: speeds may be far too low."
    if found.reference is None:
        yield "No reference was given: perplexities alone do not tell what a file lost."
