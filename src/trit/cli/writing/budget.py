"""`trit quantize --fit` and its like: what is measured, what was chosen, and why."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trit.cli._measuring import Measuring
from trit.cli._terminal import note, size, table
from trit.cli.writing.job import carry_out

if TYPE_CHECKING:
    from trit.budget import Allocation, Target
    from trit.job.feedback import Feedback
    from trit.recipe import Overrides


def quantize_to(
    path: Path,
    out: Path | None,
    target: "Target",
    wishes: "Overrides",
    *,
    imatrix: Path | None,
    calibration: Path | None,
    feedback: "Feedback | None",
    threads: int | None,
    dry_run: bool,
    json: bool,
    jsonl: bool,
    card: bool = False,
) -> None:
    """Choose the formats, say why, and write the file."""
    from trit.budget import prepare

    with _Counting(jsonl=jsonl) as progress:
        job, allocation, kept = prepare(
            path, out, target, wishes, imatrix=imatrix, calibration=calibration,
            feedback=feedback, threads=threads, on_progress=progress, said=note,
        )  # fmt: skip
    note(f"sensitivities in {kept}")
    with job:
        if card:
            from trit.job.carding import reserve

            reserve(job)
        planned = job.result()
        if not json:
            print(as_words(allocation, planned.bytes, planned.bits_per_weight))
        carry_out(
            job, dry_run=dry_run, json=json, jsonl=jsonl, card=card, threads=threads,
            more={"budget": allocation.to_dict()},
        )  # fmt: skip


class _Counting(Measuring):
    """Counts tokens while importance data are measured, tensors after that."""

    def __call__(self, what: str, done: int, total: int) -> None:
        tensors = "sampl" in what or "sensitiv" in what
        self.unit = "tensor" if tensors else "token"
        super().__call__(what, done, total)


def as_words(allocation: "Allocation", file_bytes: int, bits: float) -> str:
    """The curve around the file and the formats by kind of tensor, in 80 columns."""
    rows = [("size", "bits/weight", "predicted KLD", "")]
    points = [(p.bytes, p.bits_per_weight, p.kld, "") for p in allocation.frontier]
    points.append((file_bytes, bits, allocation.kld, "<- this file"))
    rows += [(size(b), f"{w:.2f}", f"{kld:.4g}", mark) for b, w, kld, mark in sorted(points)]
    lines = [table(rows, right=frozenset({0, 1, 2})), "", _kinds(allocation.tensors)]
    least = "" if allocation.optimal else "; a better choice was not ruled out"
    lines.append(
        f"possible: {size(allocation.smallest)} to {size(allocation.largest)}; "
        f"KLD in nats per token, as predicted{least}"
    )
    return "\n".join(lines)


def _kinds(tensors: dict[str, dict[str, Any]]) -> str:
    """A row per kind: how many tensors of each format, share of bytes and of the loss.

    `gain` is what one more MiB in the best place of that kind would take off the KLD.
    """
    kinds: dict[str, list[dict[str, Any]]] = {}
    for entry in tensors.values():
        kinds.setdefault(entry["kind"], []).append(entry)
    total = sum(entry["bytes"] for entry in tensors.values())
    rows = [("tensors", "bytes", "loss", "KLD/MiB more", "formats")]
    for kind, entries in kinds.items():
        counts: dict[str, int] = {}
        for entry in sorted(entries, key=lambda e: -e["bytes"]):
            counts[entry["format"]] = counts.get(entry["format"], 0) + 1
        formats = ", ".join(f"{n}x {f.upper()}" if n > 1 else f.upper() for f, n in counts.items())
        rows.append(
            (
                kind.removesuffix(".weight"),
                f"{100 * sum(e['bytes'] for e in entries) / total:.1f}%",
                f"{100 * sum(e['share'] for e in entries):.1f}%",
                f"{max(map(_gain, entries)):.2g}",
                formats,
            )
        )
    width = 80 - sum(2 + max(len(row[column]) for row in rows) for column in range(4))
    return table(_wrapped(rows, width), right=frozenset({1, 2, 3}))


def _gain(entry: dict[str, Any]) -> float:
    larger = entry["larger"]
    if larger is None:
        return 0.0
    saved = float(entry["predicted_kld"] - larger["predicted_kld"])
    return saved / float(larger["bytes"] - entry["bytes"]) * (1 << 20)


def _wrapped(rows: Sequence[tuple[str, ...]], width: int) -> list[tuple[str, ...]]:
    """Rows whose last cell is at most `width` wide, the rest of it in rows of its own."""
    made: list[tuple[str, ...]] = []
    for *cells, last in rows:
        lines = [""]
        for word in last.split(", "):
            if lines[-1] and len(lines[-1]) + 2 + len(word) > width:
                lines.append(word)
            else:
                lines[-1] += f", {word}" if lines[-1] else word
        made.append((*cells, lines[0]))
        made += [(*[""] * len(cells), line) for line in lines[1:]]
    return made
