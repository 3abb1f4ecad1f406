"""What a distillation's folder is filled with first: data, and the student as it is at first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from trit import archs
from trit.errors import UsageError
from trit.files.source import Source, open_source
from trit.quantize import quantize
from trit.runtime.tokenizer import Tokenizer
from trit.training import _folder
from trit.training import config as configs
from trit.training import data as datas
from trit.training.distill import sampled
from trit.training.distill.settings import DistillSettings

START = "start.gguf"
MEASURED = 4  # sequences that tell how large the inputs of sub-norms are
_OURS = (_folder.LOCK, datas.ABOUT, "train.bin", "held_out.bin")
_BEGINNINGS = ("start.", "sampled-")  # of files that are ours, the unfinished ones among them

Report = Callable[[str, int, int], None]


def make(
    path: Path,
    source: Source,
    sha256: str,
    settings: DistillSettings,
    folder: Path,
    threads: int,
    report: Report,
) -> list[str]:
    """Fill the folder of a distillation from the teacher at `path`, which `source` has open and
    `sha256` identifies.

    What is said of the student then: tensors that are not in the type that was asked for.
    """
    names = [each.name for each in folder.iterdir()]
    ours = [each for each in names if each in _OURS or each.startswith(_BEGINNINGS)]
    _folder.refuse_others(folder, ours)
    held = tokenizer(source)
    if settings.data:
        config = configs.Data(settings.data, held_out=settings.share)
        datas.pack(datas.read(config, Path()), config, held, folder)
    else:
        _sample(path, sha256, settings, held, folder, threads, report)
    datas.Packed(folder, held, settings.context)  # long enough, or nothing is begun
    _check_held_out(folder, held, settings)
    if settings.ternary:
        _begin_ternary(source, settings, folder)
    elif not settings.is_file:
        return _quantize(settings.init or path, settings, folder, threads, report)
    return []


def start(settings: DistillSettings, folder: Path) -> Path:
    """The file that the student is at first."""
    return Path(settings.student) if settings.is_file else folder / START


def tokenizer(source: Source) -> Tokenizer:
    """The teacher's; errors as for Tokenizer.from_gguf."""
    return Tokenizer.from_gguf(source.metadata, name=source.path)


def _sample(
    path: Path,
    sha256: str,
    settings: DistillSettings,
    held: Tokenizer,
    folder: Path,
    threads: int,
    report: Report,
) -> None:
    """Text of the teacher's, a part for each sequence of the run and one to measure on."""
    measured = 2 * (settings.measure_windows + 1) * settings.context
    trained = settings.steps * settings.batch * settings.context + 2 * settings.context
    tokens = np.concatenate(
        sampled.write(
            path,
            sha256,
            folder,
            trained + measured,
            settings.context,
            settings.seed,
            threads,
            report,
        )
    )
    cut = len(tokens) - measured
    texts = [{"name": f"text by {path.name}", "seed": settings.seed}]
    about = {"texts": texts, "licence": "", "provenance": sampled.PROVENANCE}
    parts = {"train": [tokens[:cut]], "held_out": [tokens[cut:]]}
    datas.write(parts, held, folder, about)


def _check_held_out(folder: Path, held: Tokenizer, settings: DistillSettings) -> None:
    packed = datas.Packed(folder, held, settings.context)
    if len(list(packed.windows(None))) < 2:
        raise UsageError(
            f"{folder}: what is held out gives {len(packed.held_out)} tokens, expected two "
            f"sequences of {settings.context} or more. Take longer texts, a smaller --context or "
            "a larger --held-out."
        )


def _begin_ternary(teacher: Source, settings: DistillSettings, folder: Path) -> None:
    """A BitNet of floats: the teacher's or init's, or what is made of it."""
    from trit.training.distill import ternary

    with ExitStack() as stack:
        source = teacher
        if settings.init is not None:
            source = open_source(settings.init)
            stack.callback(source.close)
        plan = archs.plan(source, context=settings.context)
        ternary.check(plan, source.path)
        if ternary.is_bitnet(plan):
            arrays = {name: tensor.decode() for name, tensor in source.tensors.items()}
            ternary.write(folder / START, source.values, arrays)
        else:
            train = np.fromfile(folder / "train.bin", "<u4").astype(np.int64)
            count = min(MEASURED, len(train) // settings.context)
            rows = train[: count * settings.context].reshape(count, settings.context)
            ternary.insert(source, plan, rows, folder / START)


def _quantize(
    path: Path, settings: DistillSettings, folder: Path, threads: int, report: Report
) -> list[str]:
    """The best that rounding alone gives: weighed by importance, unless that is given otherwise."""
    calibration = settings.calibration
    if settings.imatrix is None and calibration is None:
        calibration = "default"
    made = quantize(
        path, folder / START, settings.student, imatrix=settings.imatrix, calibration=calibration,
        effort=settings.effort, tensor_types=settings.tensor_types, threads=threads,
        on_progress=report,
    )  # fmt: skip
    pairs = Counter((str(each.fallback_from), each.format) for each in made.fallbacks)
    return [
        f"rows of {count} tensors do not fit {wished.upper()}: {had.upper()} instead"
        for (wished, had), count in sorted(pairs.items())
    ]
