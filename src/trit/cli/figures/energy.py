"""Joules per token for people: what was measured, what was modelled, and on what assumptions."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trit.evaluate.energy import Energy
    from trit.evaluate.speed import SpeedTest

WIDTH = 80


def announced(tests: int, seconds: float) -> None:
    """Say what measuring will cost, or why nothing is measured."""
    from trit.cli._terminal import counted, note
    from trit.evaluate.energy import meter

    counters, why = meter()
    if counters is None:
        note(f"energy is modelled, not measured: {why}")
    else:
        note(
            f"energy: {seconds:g} seconds of idling, then as long for each of "
            f"{counted(tests, 'test')}, {(tests + 1) * seconds / 60:.0f} minutes in all; leave the "
            "machine alone meanwhile"
        )


def consumed(
    path: Path,
    tests: Sequence["SpeedTest"],
    threads: Sequence[int] | None,
    seconds: float,
    cache_type: str,
    jsonl: bool,
) -> list["Energy"]:
    """Measure and model, with progress on stderr."""
    from trit.cli._progress import Progress
    from trit.evaluate.energy import energies

    with Progress(jsonl=jsonl, unit="second") as progress:
        return list(energies(path, tests, threads, seconds, cache_type, on_progress=progress))


def energy_text(taken: Sequence["Energy"]) -> str:
    """The answer for people, in millijoules per token."""
    from trit.evaluate.energy import ADD, DDR, FP16, HBM, INT8

    assumptions = (
        f"modelled: {INT8:g} pJ for a product and sum of int8, {FP16:g} of FP16, {ADD:g} for the "
        f"sum that hardware made for ternary weights would need in its place (7 nm), {DDR:g} pJ "
        f"for a byte of DDR, {HBM:g} of HBM2. Nothing of this machine is in it, and caches, "
        "instructions and leakage are left out: it compares, it does not predict."
    )
    measured = [each for each in taken if each.measured is not None]
    parts = [_measured(measured), ""] if measured else []
    if taken[0].unmeasured is not None:
        parts += [*textwrap.wrap(f"not measured: {taken[0].unmeasured}.", WIDTH), ""]
    return "\n".join([*parts, _modelled(taken), "", *textwrap.wrap(assumptions, WIDTH)])


def _measured(taken: Sequence["Energy"]) -> str:
    from trit.cli._terminal import table

    rows = [["MEASURED, idle subtracted", "THREADS", "mJ/TOKEN", "WATTS", "IDLE", "SECONDS"]]
    domains: tuple[str, ...] = ()
    for each in taken:
        found = each.measured
        assert found is not None
        domains = found.domains
        rows.append(
            [
                each.test.label,
                str(each.threads),
                f"{1e3 * found.joules:.3f}",
                f"{found.watts:.1f}",
                f"{found.idle_watts:.1f}",
                f"{found.seconds:.0f}",
            ]
        )
    memory = "" if "dram" in domains else "; no counter for memory"
    return f"{table(rows, frozenset(range(1, 6)))}\nRAPL domains: {', '.join(domains)}{memory}"


def _modelled(taken: Sequence["Energy"]) -> str:
    from trit.cli._terminal import table

    head = ["MODELLED, mJ/TOKEN", "ARITHMETIC", "TERNARY AS SUMS", "DDR", "HBM2", "MB READ"]
    rows = [head]
    for each in taken:
        found = each.modelled
        joules = (found.arithmetic, found.arithmetic_adding, found.memory_ddr, found.memory_hbm)
        label = f"{each.test.label}, t{each.threads}"
        rows.append([label, *(f"{1e3 * j:.4g}" for j in joules), f"{found.bytes / 1e6:.4g}"])
    return table(rows, frozenset(range(1, len(head))))
