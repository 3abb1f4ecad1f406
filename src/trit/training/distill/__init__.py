"""Train a small or rounded model to say what a large one says, and write it as a file that runs.

    distill("model-f16.gguf", DistillSettings("Q4_0", data=(Path("text.txt"),)), out="run")

The student is the teacher in another type, trained through its roundings (LLM-QAT: Liu et al. 2023,
arXiv:2305.17888; scales as in LSQ), or a model of its own with the teacher's tokenizer. Its file is
as large as the one it began as, and decodes to the very numbers that were trained,
but for TQ1_0 and TQ2_0: there the embedding is Q6_K and scales are float16.

A run is a folder: settings, data, first file, state, diary, plot, student. The same call on a
folder that is not finished goes on where it stopped; on a CPU to the same bits. Extra `train`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trit.training.distill._prepare import Preparation, prepare
from trit.training.distill._result import DistillResult
from trit.training.distill.settings import DistillSettings

__all__ = ["DistillResult", "DistillSettings", "Preparation", "distill", "prepare"]

PathLike = str | os.PathLike[str]


def distill(
    teacher: PathLike,
    settings: DistillSettings,
    out: PathLike | None = None,
    *,
    threads: int | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
    on_event: Callable[[dict[str, Any]], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> DistillResult:
    """Train a student of `teacher` (a path, a zoo name or hf:org/repo), or go on with a run.

    `out` is the run's folder (default: named after both). `threads`: None for those the process may
    use; a run that goes on keeps its number. `on_progress(what, done, total)` counts tokens, and
    bytes while files are read or written; `on_event` gets each line of the diary. Once `stop()` is
    true, the state is saved and KeyboardInterrupt raised.

    Errors: UsageError (a setting, a folder of another run, vocabularies that differ),
    InvalidFileError (a text, a model, a damaged state), UnsupportedError (no torch; a mixture of
    experts), DoesNotFitError (memory, disk), TritError (the loss is no longer a number).
    """
    folder = None if out is None else Path(out)
    with prepare(teacher, settings, folder, threads, on_progress) as prepared:
        return prepared.run(on_progress, on_event, stop)
