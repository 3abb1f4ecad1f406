"""Train a BitNet b1.58 model, or its float twin, from texts to a file that runs.

    train("story.toml")                 # folder story/ beside it, story/story.gguf in the end
    train("story.toml", twin=True)      # the same in floats, in story-float/

A run is a folder: config, tokenizer, packed tokens, state, diary, plot, model. The same call on a
folder that is not finished goes on where it stopped; on a CPU to the same bits. Extra `train`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trit.training._prepare import Preparation, prepare
from trit.training._result import Cost, TrainResult, duration

__all__ = ["Cost", "Preparation", "TrainResult", "duration", "prepare", "train"]

PathLike = str | os.PathLike[str]


def train(
    config: PathLike,
    out: PathLike | None = None,
    *,
    twin: bool = False,
    threads: int | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
    on_event: Callable[[dict[str, Any]], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> TrainResult:
    """Train what a TOML file says, or go on with a run's folder, and write the model.

    `out` is the run's folder (default: named as the file, beside it). `twin`: weights stay floats.
    `threads`: None for those the process may use; a run that goes on keeps its number.
    `on_progress(what, done, total)` counts tokens; `on_event` gets each line of the diary. Once
    `stop()` is true, the state is saved and KeyboardInterrupt raised.

    Errors: UsageError (no such file; a folder of another run), InvalidFileError (a key, a text, a
    damaged state), UnsupportedError (no torch), DoesNotFitError (memory, disk), TritError (the loss
    is no longer a number).
    """
    with prepare(Path(config), None if out is None else Path(out), twin, threads) as prepared:
        return prepared.run(on_progress, on_event, stop)
