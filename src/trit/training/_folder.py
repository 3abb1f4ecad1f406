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
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from trit.errors import DoesNotFitError, InvalidFileError, UsageError
from trit.files._whole import whole
from trit.files.source import trit_version
from trit.machine.memory import free_memory
from trit.training import config as configs
from trit.training import data as datas
from trit.training import tokenizer as tokenizers
from trit.training.config import Config

CONFIG, ABOUT, RESULT, LOCK = "config.toml", "run.json", "result.json", "lock"
_OURS = (
    LOCK, CONFIG, datas.ABOUT, tokenizers.FILE, tokenizers.SETTINGS, "train.bin", "held_out.bin"
)  # fmt: skip


def make(
    config: Config, path: Path, folder: Path, twin: bool, threads: int, processes: int
) -> None:
    """Fill a run's folder; run.json comes last and says that all is there."""
    refuse_others(folder, _OURS)
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
    more = {"twin": twin, "seed": config.seed, "processes": processes}
    write_about(folder, configs.flat(config), threads, more)


def refuse_others(folder: Path, ours: Collection[str]) -> None:
    """UsageError for a folder with files that no beginning of a run, which writes `ours`, left."""
    names = [each.name for each in folder.iterdir()]
    others = [name for name in names if name not in ours and not name.endswith(".partial")]
    if others:
        raise UsageError(
            f"{folder} holds other things ({others[0]}): name a new folder with --out."
        )


def write_about(
    folder: Path, config: Mapping[str, Any], threads: int, more: Mapping[str, Any]
) -> None:
    """Write run.json: what the figures of a run depend on."""
    about = {"trit": trit_version(), "torch": torch_version(), "threads": threads}
    write_json(folder / ABOUT, about | dict(more) | {"config": dict(config)})


def check_same(config: Config, base: Path | None, folder: Path, twin: bool) -> None:
    """UsageError unless the folder's run is the one that is asked for; `base`: of the texts."""
    about = read_about(folder, {"twin": bool})
    lacks = configs.differences(about["config"], configs.flat(config))
    if about["twin"] != twin:
        lacks.append("it is a float twin" if about["twin"] else "it is no float twin")
    if base is not None and not lacks:
        had = json.loads((folder / datas.ABOUT).read_text("utf-8"))["texts"]
        for old, text in zip(had, datas.read(config.data, base), strict=True):
            if old["sha256"] != text.sha256:
                lacks.append(f"the text {text.name} has changed")
    refuse_differences(folder, lacks)


def refuse_differences(folder: Path, lacks: list[str]) -> None:
    """UsageError if there are any, in words."""
    if lacks:
        raise UsageError(
            f"{folder} was begun otherwise: {'; '.join(lacks)}. "
            "Change it back to go on, or name another folder with --out."
        )


def read_about(folder: Path, more: Mapping[str, type] | None = None) -> dict[str, Any]:
    """run.json of a folder; InvalidFileError for one that is not as it was written.

    `more`: keys beside those of every run that must be there, and their types.
    """
    path = folder / ABOUT
    try:
        about = json.loads(path.read_text("utf-8"))
        kinds = {"config": dict, "threads": int, "torch": str} | dict(more or {})
        if not all(isinstance(about[key], kind) for key, kind in kinds.items()):
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise InvalidFileError(
            path, "", "is not as trit wrote it. Begin in a new folder."
        ) from None
    return dict(about)


def changes(about: Mapping[str, Any], threads: int | None) -> tuple[str, ...]:
    """How what a run is taken up by differs from what it began with, in words."""
    remarks = []
    if threads not in (None, about["threads"]):
        remarks.append(
            f"the run keeps the {about['threads']} threads it began with: its figures depend on it"
        )
    if about["torch"] != torch_version():
        remarks.append(
            f"the run began with torch {about['torch']}, this is {torch_version()}: "
            "the last bits of its figures may be others from here on"
        )
    return tuple(remarks)


def fingerprint(config: Mapping[str, Any], free: Collection[str], *others: object) -> str:
    """Of all that a run's figures depend on: its config but for what is free, and its data."""
    fixed = {key: value for key, value in config.items() if key not in free}
    text = json.dumps([fixed, *others], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def check_room(folder: Path, memory: int, held: int, disk: int, device: str, remedy: str) -> None:
    """DoesNotFitError unless so many bytes of memory, `held` of them by now, and disk are free."""
    free = free_memory()
    if device == "cpu" and free is not None and memory - held > free:
        raise DoesNotFitError(
            f"training needs {memory:,} bytes of memory before activations and has {held:,}; "
            f"{free:,} are free. {remedy}"
        )
    room = shutil.disk_usage(folder).free
    if disk > room:
        raise DoesNotFitError(
            f"{folder}: the state takes {disk:,} bytes, {room:,} are free on its disk."
        )


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
