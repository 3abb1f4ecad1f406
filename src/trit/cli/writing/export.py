"""`trit quantize SRC OUT_DIR --to …`: a folder of AWQ, compressed-tensors or HQQ."""

from pathlib import Path
from typing import Any

from trit.cli._progress import Progress
from trit.cli._terminal import note, print_json, size, warn
from trit.errors import UsageError
from trit.export import Export, Exported, check, usual_quantizer


def export(
    path: Path,
    out: Path | None,
    target: str,
    *,
    bits: int,
    group_size: int,
    quantizer: str | None,
    symmetric: bool,
    imatrix: Path | None,
    calibration: Path | None,
    threads: int | None,
    dry_run: bool,
    json: bool,
    jsonl: bool,
) -> None:
    """Write the folder, or only say what it would be."""
    from trit.files import imatrix as importance_files

    method = quantizer or usual_quantizer(target)
    check(target, bits, group_size, method, symmetric)
    if out is None and not dry_run:
        raise UsageError(f"no output: trit quantize SRC OUT_DIR --to {target}, or --dry-run")
    data = None if imatrix is None else importance_files.load(imatrix)
    with Export(
        path, out, target, bits=bits, group_size=group_size, quantizer=method,
        symmetric=symmetric, imatrix=data, calibration=calibration, threads=threads,
    ) as job:  # fmt: skip
        result = job.result()
        for text in result.warnings:
            warn(text)
        if not dry_run:
            note(f"{path} -> {out} ({size(result.bytes)}, {described(result)})")
            with Progress(jsonl=jsonl) as progress:
                result = job.run(progress)
    if result.salient is not None:
        note(f"1% of the channels carry {100 * result.salient:.0f}% of the inputs' energy")
    if result.changed is not None:
        what = "factors" if method == "awq" else "error feedback"
        note(f"{what} made {result.changed} of {result.linears} linears better")
    if json:
        print_json(as_json(result, dry_run))
    else:
        print(f"{out or path}: {described(result)}, {result.bytes:,} bytes ({size(result.bytes)})")


def described(result: Exported) -> str:
    """In a few words."""
    return (
        f"{result.target}, {result.bits} bits in groups of {result.group_size}, "
        f"{result.bits_per_weight:.2f} bits per weight"
    )


def as_json(result: Exported, dry_run: bool) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "path": None if dry_run else str(result.path),
        "type": result.target,
        "dry_run": dry_run,
        "bytes": result.bytes,
        "bits": result.bits,
        "group_size": result.group_size,
        "quantizer": result.quantizer,
        "bits_per_weight": round(result.bits_per_weight, 4),
        "weights": result.weights,
        "linears": result.linears,
        "weighted": result.weighted,
        "salient": result.salient,
        "changed": result.changed,
        "seconds": round(result.seconds, 3),
        "warnings": list(result.warnings),
    }
