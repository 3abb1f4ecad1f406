"""Importance data that a quantization measures itself, kept beside its output for the next time.

`OUT.imatrix.gguf` is an ordinary file of importance data. It says what it was measured from, so
that a job that goes on, or another type of the same model, does not measure again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from trit import calibrate
from trit.calibrate import OnProgress
from trit.errors import UsageError
from trit.files import imatrix as files
from trit.files.imatrix import Imatrix
from trit.files.source import open_source

PathLike = str | os.PathLike[str]

DEFAULT = "default"  # in place of a text: trit's passages and what the model writes
SUFFIX = ".imatrix.gguf"


def place(out: PathLike) -> Path:
    """Where the importance data for this output are kept."""
    path = Path(out)
    return path.with_name(path.name.removesuffix(".gguf") + SUFFIX)


def measured(
    model: PathLike,
    out: PathLike,
    calibration: PathLike,
    threads: int | None = None,
    on_progress: OnProgress | None = None,
    said: Callable[[str], None] | None = None,
) -> tuple[Imatrix, calibrate.Importance | None]:
    """The importance data of a model on a text, and how they were measured; None: they were there.

    calibration  a UTF-8 file, or DEFAULT
    Errors as for calibrate.imatrix; UsageError for a file in their place that holds others.
    """
    path, text = place(out), text_of(calibration)
    if is_there(model, path, text):
        return files.load(path), None
    if path.exists() and calibrate.FINGERPRINT not in files.load(path).metadata:
        raise UsageError(
            f"{path} is in the way: it was not measured by 'trit quantize --calibration'. "
            "Use it with --imatrix, or move it."
        )
    found = calibrate.imatrix(
        model, path, text, threads=threads, on_progress=on_progress, said=said
    )
    return files.load(path), found


def planned(
    model: PathLike, out: PathLike | None, calibration: PathLike, imatrix: PathLike | None
) -> Imatrix:
    """What `measured` would give, as far as sizes depend on it; nothing is run.

    UsageError if there is a file of importance data, `imatrix`, as well.
    """
    if imatrix is not None:
        raise UsageError("--imatrix and --calibration: importance data come from one of them.")
    path, text = place(out or "out.gguf"), text_of(calibration)
    if out is not None and is_there(model, path, text):
        return files.load(path)
    source = open_source(model)
    try:
        shapes = calibrate.entries(calibrate.plan_for(source))
    finally:
        source.close()
    ones = {name: np.ones(rows * cols, np.float32) for name, (rows, cols) in shapes.items()}
    return Imatrix(path, ones, (calibrate.text_name(text),), chunks=1, digest="0" * 64)


def text_of(calibration: PathLike) -> Path | None:
    """The file that is meant; None for DEFAULT."""
    return None if os.fspath(calibration) == DEFAULT else Path(calibration)


def is_there(model: PathLike, path: Path, text: Path | None) -> bool:
    if not path.exists():
        return False
    source = open_source(model)
    try:
        return calibrate.is_measured(path, calibrate.fingerprint(source, text))
    finally:
        source.close()
