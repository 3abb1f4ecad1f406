"""A run that is ready: its folder is there, everything is checked, the cost is known."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from trit.errors import InvalidFileError, UnsupportedError, UsageError
from trit.machine.processors import default_threads
from trit.training import _folder, shape
from trit.training import config as configs
from trit.training import data as datas
from trit.training import tokenizer as tokenizers
from trit.training._result import Cost, TrainResult
from trit.training.config import Config

if TYPE_CHECKING:  # they bring torch
    from trit.training.processes import Processes
    from trit.training.session import Session

_FLOAT = 4  # bytes
_SLOTS = 4  # floats of a weight: itself, its gradient, the optimizer's two at most


class Preparation:
    """A run in its folder. A context manager: it holds the folder's lock.

    Of several processes (processes.py) the first holds it; only that one writes.
    """

    def __init__(
        self,
        config: Config,
        folder: Path,
        twin: bool,
        threads: int,
        session: Session,
        hf: Mapping[str, Any],
        lock: int | None,
        remarks: tuple[str, ...],
    ) -> None:
        self.config = config
        self.folder = folder
        self.twin = twin
        self.threads = threads
        self._session = session
        self._hf = hf
        self._lock = lock
        self.remarks = remarks  # what is not as it was asked for, or as it was

    def __enter__(self) -> Preparation:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._lock is not None:
            os.close(self._lock)

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self._session.processes.first

    @property
    def step(self) -> int:
        """Steps that are done already."""
        return self._session.step

    @property
    def vocab(self) -> int:
        """Tokens of the vocabulary; a small text gives fewer than were wished for."""
        return self._session.tokenizer.vocab_size

    def cost(self) -> Cost:
        """Reckon what is left. DoesNotFitError if memory or disk are too small for it."""
        from trit.training import loop
        from trit.training import session as sessions

        session, training = self._session, self.config.training
        parameters, memory, disk = self._check_room()
        left = training.steps - session.step
        tokens = left * training.batch * self.config.model.context
        ternary = session.ternary(training.steps - 1)
        seconds = loop.seconds_of(
            left, self.threads, lambda: sessions.gradients(session, session.step, ternary),
            session.network.weights.values(),
        )  # fmt: skip
        flops = 6.0 * parameters * tokens
        return Cost(parameters, left, tokens, flops, memory, disk, seconds, self.threads)

    def run(
        self,
        on_progress: Callable[[str, int, int], None] | None = None,
        on_event: Callable[[dict[str, Any]], None] | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> TrainResult:
        """Take the steps that are left and write the model. See `trit.training.train`."""
        from trit.training import loop

        self._check_room()
        with loop.threads(self.threads):
            loop.run(self._session, on_progress, on_event, stop)
            result = self._finish() if self.first else None
            self._session.processes.wait()
        return result or TrainResult.read(self.folder / _folder.RESULT)

    def _finish(self) -> TrainResult:
        from trit.training import agreement, export, plot
        from trit.training import log as logs
        from trit.training import session as sessions

        session, folder = self._session, self.folder
        lines = [line for line in logs.read(folder) if line["event"] == "held_out"]
        if not lines:
            raise InvalidFileError(
                folder / logs.FILE, "", "expected the last measurement, got none. Begin again."
            )
        facts = export.card(session, lines[-1])
        model, gguf = folder / "model", folder / f"{folder.resolve().name}.gguf"
        export.write_folder(session, self._hf, facts, model)
        size, fallbacks = export.write_gguf(session, model, facts, gguf)
        windows = session.packed.windows(agreement.WINDOWS)
        agreed = agreement.compare(
            lambda tokens: sessions.logits(session, tokens), windows, gguf,
            self.config.model.context,
        )  # fmt: skip
        result = TrainResult(
            kind=facts["kind"], path=folder, gguf=gguf, folder=model, gguf_bytes=size,
            parameters=facts["parameters"], steps=facts["steps"], tokens=facts["tokens"],
            bits_per_byte=facts["bits_per_byte"], held_out_bytes=facts["held_out_bytes"],
            held_out_sha256=facts["held_out_sha256"], kld=agreed.kld, same_top=agreed.same_top,
            compared=agreed.tokens, seconds=session.seconds, fallbacks=fallbacks,
            plot=plot.draw(folder),
        )  # fmt: skip
        _folder.write_json(folder / _folder.RESULT, result.to_dict())
        return result

    def _check_room(self) -> tuple[int, int, int]:
        """Parameters, and the bytes of memory and disk they need, which must be free."""
        parameters = sum(each.numel() for each in self._session.network.weights.values())
        memory, disk = _SLOTS * _FLOAT * parameters, 2 * _SLOTS * _FLOAT * parameters
        held = memory // _SLOTS * (3 if self.step else 1)  # untouched zeros take no memory
        device = self._session.device.type
        _folder.check_room(self.folder, memory, held, disk, device, "Take a smaller model.")
        return parameters, memory, disk


def prepare(path: Path, out: Path | None, twin: bool, threads: int | None) -> Preparation:
    """Make or check the run's folder and open what is in it; errors as for `train`.

    `path` is a config, or the folder of a run that has begun.
    """
    try:
        import torch  # noqa: F401
    except ImportError:
        raise UnsupportedError("training needs torch: pip install 'trit[train]'.") from None
    from trit.training import loop
    from trit.training import processes as several

    begun = path.is_dir() and (path / _folder.ABOUT).is_file()
    if begun and out is not None:
        raise UsageError(f"{path} is a run of its own: leave out --out to go on with it.")
    config = configs.load(path / _folder.CONFIG if begun else path)
    folder = path if begun else out or path.with_suffix("")
    if twin and not begun:
        folder = folder.with_name(folder.name + "-float")
    if folder.is_file():
        raise UsageError(f"{folder} is a file: name a folder with --out.")
    processes = several.started(
        loop.device(config.training.device, "training.device"), config.training.batch
    )
    if not processes.first:
        processes.wait()  # for the first one to make the folder
        twin = bool(_folder.read_about(folder, {"twin": bool})["twin"])
        return _opened(config, folder, twin, threads, None, processes)
    folder.mkdir(parents=True, exist_ok=True)
    lock = _folder.locked(folder)
    try:
        if (folder / _folder.ABOUT).is_file():
            about = _folder.read_about(folder, {"twin": bool})
            twin = twin or (begun and bool(about["twin"]))
            _folder.check_same(config, None if begun else path.parent, folder, twin)
            if not begun:  # what no figure depends on may have changed
                shutil.copyfile(path, folder / _folder.CONFIG)
        else:
            count = threads or max(1, default_threads() // processes.count)
            _folder.make(config, path, folder, twin, count, processes.count)
        processes.wait()
        return _opened(config, folder, twin, threads, lock, processes)
    except BaseException:
        os.close(lock)
        raise


def _opened(
    config: Config,
    folder: Path,
    twin: bool,
    threads: int | None,
    lock: int | None,
    processes: Processes,
) -> Preparation:
    from trit.training import loop
    from trit.training import session as sessions

    about = _folder.read_about(folder, {"twin": bool})
    count = int(about["threads"])
    remarks = _folder.changes(about, threads)
    if about.get("processes", 1) != processes.count:
        remarks += (
            f"the processes are not as many as at first, {processes.count} now: "
            "the last bits of the run's figures may be others from here on",
        )
    tokenizer, ids = tokenizers.load(folder)
    packed = datas.Packed(folder, tokenizer, config.model.context)
    hf = shape.hf_config(config.model, tokenizer.vocab_size, ids, folder.resolve().name)
    plan, shapes = shape.planned(hf, config.model.context)
    fingerprint = _folder.fingerprint(about["config"], configs.FREE, about["twin"], packed.about)
    with loop.threads(count):
        session = sessions.begin(
            config, folder, twin, packed, tokenizer, plan, shapes, fingerprint, processes
        )
    return Preparation(config, folder, twin, count, session, hf, lock, remarks)
