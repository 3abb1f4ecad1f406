"""A run's folder: made once, and compared whenever the run is to go on.

config.toml, run.json       what it is, and what its figures depend on
tokenizer.json, *.bin       tokenizer and packed tokens (data.json tells of them)
state.npz, log.jsonl        how far it came
plot.svg, model/, NAME.gguf, result.json    what it gave
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trit.errors import InvalidFileError, UsageError
from trit.files.source import trit_version
from trit.training import config as configs
from trit.training import data as datas
from trit.training import tokenizer as tokenizers
from trit.training._whole import whole
from trit.training.config import Config

CONFIG, ABOUT, RESULT, LOCK = "config.toml", "run.json", "result.json", "lock"
_OURS = (
    LOCK, CONFIG, datas.ABOUT, tokenizers.FILE, tokenizers.SETTINGS, "train.bin", "held_out.bin"
)  # fmt: skip


def make(
    config: Config, path: Path, folder: Path, twin: bool, threads: int, processes: int
) -> None:
    """Fill a run's folder; run.json comes last and says that all is there."""
    names = [each.name for each in folder.iterdir()]
    others = [name for name in names if name not in _OURS and not name.endswith(".partial")]
    if others:
        raise UsageError(
            f"{folder} holds other things ({others[0]}): name a new folder with --out."
        )
    texts = datas.read(config.data, path.parent)
    if config.tokenizer.file is not None:
        tokenizers.adopt(path.parent / config.tokenizer.file, folder)
    else:
        separator = config.data.separator
        documents = (each for text in texts for each in datas.documents(text.train, separator))
        tokenizers.train(documents, config.tokenizer.vocab, folder)
    tokenizer, _ = tokenizers.load(folder)
    datas.pack(texts, config.data, tokenizer, folder)
    datas.Packed(folder, tokenizer, config.model.context)  # long enough, or nothing is begun
    shutil.copyfile(path, folder / CONFIG)
    about = {
        "trit": trit_version(),
        "torch": torch_version(),
        "twin": twin,
        "seed": config.seed,
        "threads": threads,
        "processes": processes,
        "config": configs.flat(config),
    }
    write_json(folder / ABOUT, about)


def check_same(config: Config, base: Path | None, folder: Path, twin: bool) -> None:
    """UsageError unless the folder's run is the one that is asked for; `base`: of the texts."""
    about = read_about(folder)
    lacks = configs.differences(about["config"], configs.flat(config))
    if about["twin"] != twin:
        lacks.append("it is a float twin" if about["twin"] else "it is no float twin")
    if base is not None and not lacks:
        had = json.loads((folder / datas.ABOUT).read_text("utf-8"))["texts"]
        for old, text in zip(had, datas.read(config.data, base), strict=True):
            if old["sha256"] != text.sha256:
                lacks.append(f"the text {text.name} has changed")
    if lacks:
        raise UsageError(
            f"{folder} was begun otherwise: {'; '.join(lacks)}. "
            "Change it back to go on, or name another folder with --out."
        )


def read_about(folder: Path) -> dict[str, Any]:
    """run.json of a folder; InvalidFileError for one that is not as it was written."""
    path = folder / ABOUT
    try:
        about = json.loads(path.read_text("utf-8"))
        kinds = {"config": dict, "twin": bool, "threads": int, "torch": str}
        if not all(isinstance(about[key], kind) for key, kind in kinds.items()):
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise InvalidFileError(
            path, "", "is not as trit wrote it. Begin in a new folder."
        ) from None
    return dict(about)


def fingerprint(about: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """Of all that a run's figures depend on: its config but for what is free, and its data."""
    fixed = {key: value for key, value in about["config"].items() if key not in configs.FREE}
    text = json.dumps([fixed, about["twin"], data], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """A small file, whole or absent."""
    with whole(path) as file:
        file.write((json.dumps(values, indent=2) + "\n").encode())


def locked(folder: Path) -> int:
    """The folder for this process alone, until the handle is closed."""
    import fcntl

    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise UsageError(f"{folder} is being trained by another process: wait for it.") from None
    return handle


def torch_version() -> str:
    """Of the torch that is installed."""
    import torch

    return str(torch.__version__)
