"""A run that is ready: its folder is there, everything is checked, the cost is known.

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
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from trit._memory import free_memory
from trit._processors import default_threads
from trit._source import trit_version
from trit.archs import bitnet_b158
from trit.errors import DoesNotFitError, InvalidFileError, UnsupportedError, UsageError
from trit.plan import Plan
from trit.training import config as configs
from trit.training import data as datas
from trit.training import tokenizer as tokenizers
from trit.training._result import TrainResult
from trit.training.config import Config

if TYPE_CHECKING:  # they bring torch
    from trit.training.loop import Session

CONFIG, ABOUT, RESULT, LOCK = "config.toml", "run.json", "result.json", "lock"
_FLOAT = 4  # bytes
_SLOTS = 4  # floats of a weight: itself, its gradient, the optimizer's two at most


@dataclass(frozen=True)
class Cost:
    """What is ahead. `steps` are left; `seconds` for them, by one step tried, which moved nothing.

    memory_bytes  weights, gradients and the optimizer's memory; activations come on top
    disk_bytes    of the state, twice while it is written, and the model
    """

    parameters: int
    steps: int
    tokens: int
    flops: float
    memory_bytes: int
    disk_bytes: int
    seconds: float
    threads: int


class Preparation:
    """A run in its folder. A context manager: it holds the folder's lock."""

    def __init__(
        self,
        config: Config,
        folder: Path,
        twin: bool,
        threads: int,
        session: Session,
        hf: Mapping[str, Any],
        lock: int,
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
        os.close(self._lock)

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

        session, training = self._session, self.config.training
        parameters = sum(weight.numel() for weight in session.network.weights.values())
        left = training.steps - session.step
        tokens = left * training.batch * self.config.model.context
        memory, disk = _SLOTS * _FLOAT * parameters, 2 * _SLOTS * _FLOAT * parameters
        self._check_room(memory, disk)
        seconds = 0.0
        if left:
            with loop.threads(self.threads):
                begun = time.perf_counter()
                loop.gradients(session, session.step, session.ternary(training.steps - 1))
                seconds = (time.perf_counter() - begun) * left
            for weight in session.network.weights.values():
                weight.grad = None
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

        with loop.threads(self.threads):
            loop.run(
                self._session,
                on_progress or (lambda what, done, total: None),
                on_event or (lambda entry: None),
                stop or (lambda: False),
            )
            return self._finish()

    def _finish(self) -> TrainResult:
        from trit.training import agreement, export, plot
        from trit.training import log as logs

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
        agreed = agreement.compare(session, gguf)
        result = TrainResult(
            kind=facts["kind"], path=folder, gguf=gguf, folder=model, gguf_bytes=size,
            parameters=facts["parameters"], steps=facts["steps"], tokens=facts["tokens"],
            bits_per_byte=facts["bits_per_byte"], held_out_bytes=facts["held_out_bytes"],
            held_out_sha256=facts["held_out_sha256"], kld=agreed.kld, same_top=agreed.same_top,
            compared=agreed.tokens, seconds=session.seconds, fallbacks=fallbacks,
            plot=plot.draw(folder),
        )  # fmt: skip
        export.write_json(folder / RESULT, result.to_dict())
        return result

    def _check_room(self, memory: int, disk: int) -> None:
        free = free_memory()
        if self._session.device.type == "cpu" and free is not None and memory > free:
            raise DoesNotFitError(
                f"training needs {memory:,} bytes of memory before activations, {free:,} are free. "
                "Take a smaller model."
            )
        room = shutil.disk_usage(self.folder).free
        if disk > room:
            raise DoesNotFitError(
                f"{self.folder}: the state takes {disk:,} bytes, {room:,} are free on its disk."
            )


def prepare(path: Path, out: Path | None, twin: bool, threads: int | None) -> Preparation:
    """Make or check the run's folder and open what is in it; errors as for `train`.

    `path` is a config, or the folder of a run that has begun.
    """
    try:
        import torch  # noqa: F401
    except ImportError:
        raise UnsupportedError("training needs torch: pip install 'trit[train]'.") from None
    begun = path.is_dir() and (path / ABOUT).is_file()
    if begun and out is not None:
        raise UsageError(f"{path} is a run of its own: leave out --out to go on with it.")
    config = configs.load(path / CONFIG if begun else path)
    folder = path if begun else out or path.with_suffix("")
    if twin and not begun:
        folder = folder.with_name(folder.name + "-float")
    if folder.is_file():
        raise UsageError(f"{folder} is a file: name a folder with --out.")
    folder.mkdir(parents=True, exist_ok=True)
    lock = _locked(folder)
    try:
        if (folder / ABOUT).is_file():
            about = _about(folder)
            twin = twin or (begun and bool(about["twin"]))
            _check_same(config, None if begun else path.parent, folder, twin)
            if not begun:  # what no figure depends on may have changed
                shutil.copyfile(path, folder / CONFIG)
        else:
            _make(config, path, folder, twin, threads or default_threads())
        return _opened(config, folder, twin, threads, lock)
    except BaseException:
        os.close(lock)
        raise


def _make(config: Config, path: Path, folder: Path, twin: bool, threads: int) -> None:
    """Fill a run's folder; run.json comes last and says that all is there."""
    from trit.training.export import write_json

    others = [each.name for each in folder.iterdir() if each.name not in (LOCK, *_OURS)]
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
    shutil.copyfile(path, folder / CONFIG)
    about = {
        "trit": trit_version(),
        "torch": _torch_version(),
        "twin": twin,
        "seed": config.seed,
        "threads": threads,
        "config": configs.flat(config),
    }
    write_json(folder / ABOUT, about)


_OURS = (CONFIG, datas.ABOUT, tokenizers.FILE, tokenizers.SETTINGS, "train.bin", "held_out.bin")


def _check_same(config: Config, base: Path | None, folder: Path, twin: bool) -> None:
    """UsageError unless the folder's run is the one that is asked for; `base`: of the texts."""
    about = _about(folder)
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


def _about(folder: Path) -> dict[str, Any]:
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


def _opened(
    config: Config, folder: Path, twin: bool, threads: int | None, lock: int
) -> Preparation:
    from trit.training import loop

    about = _about(folder)
    count = int(about["threads"])
    remarks = []
    if threads not in (None, count):
        remarks.append(f"the run keeps the {count} threads it began with: its figures depend on it")
    if about["torch"] != _torch_version():
        remarks.append(
            f"the run began with torch {about['torch']}, this is {_torch_version()}: "
            "the last bits of its figures may be others from here on"
        )
    tokenizer, ids = tokenizers.load(folder)
    packed = datas.Packed(folder, tokenizer, config.model.context)
    hf = hf_config(config.model, tokenizer.vocab_size, ids, folder.resolve().name)
    plan, shapes = planned(hf, config.model.context)
    fixed = {key: value for key, value in about["config"].items() if key not in configs.FREE}
    print_of = json.dumps([fixed, twin, packed.about], sort_keys=True)
    fingerprint = hashlib.sha256(print_of.encode()).hexdigest()
    with loop.threads(count):
        session = loop.begin(config, folder, twin, packed, tokenizer, plan, shapes, fingerprint)
    return Preparation(config, folder, twin, count, session, hf, lock, tuple(remarks))


def hf_config(
    model: configs.Model, vocab: int, ids: Mapping[str, Any], name: str
) -> dict[str, Any]:
    """config.json of a model of this shape."""
    return {
        "architectures": ["BitNetForCausalLM"],
        "model_type": "bitnet",
        "_name_or_path": name,
        "hidden_size": model.width,
        "intermediate_size": model.ffn,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads or model.heads,
        "max_position_embeddings": model.context,
        "rms_norm_eps": model.norm_eps,
        "rope_theta": model.rope_base,
        "vocab_size": vocab,
        "hidden_act": "relu2",
        "tie_word_embeddings": model.tied,
        "torch_dtype": "float32",
        **ids,
    }


def planned(hf: Mapping[str, Any], context: int) -> tuple[Plan, dict[str, tuple[int, ...]]]:
    """The plan of a config.json, and the shapes of its tensors by GGUF name."""
    keys = bitnet_b158.metadata_from_hf(bitnet_b158.complete(hf))
    names = bitnet_b158.hf_shapes(hf)
    shapes = {str(bitnet_b158.rename(name)): shape for name, shape in names.items()}

    def read(name: str) -> Any:
        raise AssertionError(f"no plan of BitNet reads {name}")

    return bitnet_b158.plan(keys, shapes, read, context=context), shapes


def _locked(folder: Path) -> int:
    """The folder for this process alone, until the handle is closed."""
    import fcntl

    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise UsageError(f"{folder} is being trained by another process: wait for it.") from None
    return handle


def _torch_version() -> str:
    import torch

    return str(torch.__version__)
