"""A distillation that is ready: its folder is there, everything is checked, the cost is known."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from trit import archs, zoo
from trit.errors import UnsupportedError, UsageError
from trit.evaluate._text import read_text
from trit.files import _checksum
from trit.files.gguf import Tensor
from trit.files.source import Source, open_source, source_sha256
from trit.machine.processors import default_threads
from trit.plan import Plan
from trit.training import _folder
from trit.training import config as configs
from trit.training import data as datas
from trit.training._result import Cost
from trit.training.distill import _make, sampled
from trit.training.distill import settings as settings_
from trit.training.distill._result import DistillResult
from trit.training.distill.settings import DistillSettings

if TYPE_CHECKING:  # they bring torch
    from trit.training.distill.session import Session

Report = Callable[[str, int, int], None]

_FLOAT = 4  # bytes
_SLOTS = 6  # floats of a weight: trained, value, the gradients of both, the optimizer's two
_KEPT = 2 * 3 + 1  # on disk: trained and the optimizer's, twice while written; the best


class Preparation:
    """A distillation in its folder. A context manager: it holds the folder's lock."""

    def __init__(
        self,
        settings: DistillSettings,
        folder: Path,
        threads: int,
        session: Session,
        start: Source,
        remarks: tuple[str, ...],
        close: ExitStack,
    ) -> None:
        self.settings = settings
        self.folder = folder
        self.threads = threads
        self.session = session
        self.start = start  # the file that the student was at first
        self.remarks = remarks  # what is not as it was asked for, or as it was
        self._close = close

    def __enter__(self) -> Preparation:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close.close()

    @property
    def step(self) -> int:
        """Steps that are done already."""
        return self.session.step

    def cost(self) -> Cost:
        """Reckon what is left, by the gradients of one step, which move nothing."""
        from trit.training import loop

        session = self.session
        parameters, memory, disk = self._check_room()
        left = session.steps - session.step
        seconds = loop.seconds_of(
            left, self.threads, lambda: session.gradients(session.step),
            session.student.parameters.values(),
        )  # fmt: skip
        tokens = left * session.step_tokens
        teacher = sum(each.numel() for each in session.teacher.weights.values())
        flops = float(tokens) * (6 * parameters + 2 * teacher)
        return Cost(parameters, left, tokens, flops, memory, disk, seconds, self.threads)

    def run(
        self,
        on_progress: Report | None = None,
        on_event: Callable[[dict[str, Any]], None] | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> DistillResult:
        """Take the steps that are left and write the student. See `distill`."""
        from trit.training import loop
        from trit.training.distill import export

        self._check_room()
        with loop.threads(self.threads):
            loop.run(self.session, on_progress, on_event, stop)
            result = export.finish(self.session, self.start)
        _folder.write_json(self.folder / _folder.RESULT, result.to_dict())
        return result

    def _check_room(self) -> tuple[int, int, int]:
        """Parameters, and the bytes of memory and disk they need, which must be free."""
        student, teacher = (
            sum(each.numel() for each in network.weights.values())
            for network in (self.session.student.network, self.session.teacher)
        )
        memory, disk = (_SLOTS * student + teacher) * _FLOAT, _KEPT * _FLOAT * student
        # Untouched zeros, which the optimizer's state is at first, take no memory.
        held = (student * (3 if self.step else 1) + teacher) * _FLOAT
        device = self.session.device.type
        _folder.check_room(self.folder, memory, held, disk, device, "Take a smaller model.")
        return student, memory, disk


def prepare(
    teacher: str | os.PathLike[str],
    settings: DistillSettings,
    out: Path | None,
    threads: int | None,
    on_progress: Report | None = None,
) -> Preparation:
    """Make or check the run's folder and open what is in it; errors as for `distill`."""
    try:
        import torch  # noqa: F401
    except ImportError:
        raise UnsupportedError("distilling needs torch: pip install 'trit[train]'.") from None
    settings_.check(settings)
    report = on_progress or (lambda what, done, total: None)
    path = zoo.resolve(os.fspath(teacher), on_progress)
    folder = out or Path(f"{path.stem}-{Path(settings.student).stem}-distilled")
    if folder.is_file():
        raise UsageError(f"{folder} is a file: name a folder with --out.")
    with ExitStack() as stack:
        source = open_source(path)
        stack.callback(source.close)
        plan = _plan(source, settings)
        _require_possible(source, plan, settings)
        folder.mkdir(parents=True, exist_ok=True)
        stack.callback(os.close, _folder.locked(folder))
        sha256 = source.sha256(lambda done, of: report("reading the teacher", done, of))
        if (folder / _folder.ABOUT).is_file():
            _check_same(settings, folder, sha256)
        else:
            count = threads or default_threads()
            remarks = _make.make(path, source, sha256, settings, folder, count, report)
            more = {
                "seed": settings.seed,
                "teacher": path.name,
                "teacher_sha256": sha256,
                "files": _digests(settings),
                "remarks": remarks,
            }
            _folder.write_about(folder, settings.flat(), count, more)
            sampled.clear(folder)
        start = open_source(_make.start(settings, folder))
        stack.callback(start.close)
        return _opened(settings, folder, threads, (source, plan), start, stack.pop_all())


def _require_possible(source: Source, plan: Plan, settings: DistillSettings) -> None:
    """Refuse what cannot be, before anything is written: UsageError, UnsupportedError."""
    from trit.training import loop
    from trit.training.network import require_dense

    loop.device(settings.device, "--device")
    require_dense(plan)
    begins_as = Path(settings.student) if settings.is_file else settings.init
    if begins_as is not None:
        student = open_source(begins_as)
        try:
            own = _plan(student, settings)
            require_dense(own)
            if own.vocab_size != plan.vocab_size:
                raise UsageError(
                    f"{student.path} has {own.vocab_size:,} tokens, {source.path} "
                    f"{plan.vocab_size:,}: a student needs its teacher's tokenizer."
                )
        finally:
            student.close()


def _digests(settings: DistillSettings) -> dict[str, str]:
    """sha256 of the files, beside teacher, student and texts, that a student is made with."""
    found = {} if settings.init is None else {"init": source_sha256(settings.init)}
    if settings.imatrix is not None:
        found["imatrix"] = _checksum.sha256(settings.imatrix)
    if settings.calibration not in (None, "default"):
        found["calibration"] = _checksum.sha256(settings.calibration)
    return found


def _plan(source: Source, settings: DistillSettings) -> Plan:
    plan = archs.plan(source, context=settings.context)
    if settings.context > plan.context_length:
        raise UsageError(
            f"--context {settings.context}: {source.path} was made for {plan.context_length} "
            "tokens."
        )
    return plan


def _check_same(settings: DistillSettings, folder: Path, teacher_sha256: str) -> None:
    """UsageError unless the folder's run is the one that is asked for."""
    about = _folder.read_about(folder, {"teacher_sha256": str})
    lacks = configs.differences(about["config"], settings.flat(), settings_.FREE)
    if about["teacher_sha256"] != teacher_sha256:
        lacks.append("the teacher is another file")
    had_files = about.get("files", {})
    lacks += [
        f"{settings_.flag(name)} is another file"
        for name, digest in _digests(settings).items()
        if had_files.get(name, digest) != digest
    ]
    if not lacks:  # the names are the same, in the same order
        had = datas.read_about(folder)["texts"] if settings.data else []
        for old, path in zip(had, settings.data, strict=True):
            if path.exists() and old["sha256"] != read_text(path)[1].sha256:
                lacks.append(f"the text {path.name} has changed")
    _folder.refuse_differences(folder, lacks)


def _opened(
    settings: DistillSettings,
    folder: Path,
    threads: int | None,
    teacher: tuple[Source, Plan],
    start: Source,
    close: ExitStack,
) -> Preparation:
    import torch

    from trit.training import loop
    from trit.training.distill import student as students
    from trit.training.distill.session import Session

    source, plan = teacher
    about = _folder.read_about(folder, {"teacher_sha256": str, "remarks": list})
    with close, loop.threads(about["threads"]):
        packed = datas.Packed(folder, _make.tokenizer(source), settings.context)
        device = loop.device(settings.device, "--device")
        compute = torch.bfloat16 if settings.bf16 else torch.float32
        own = _plan(start, settings)
        with _origins(settings, source) as origins:
            made = students.read(
                own, start.tensors, origins, device, compute, settings.gradient_checkpointing
            )
        network = students.frozen(plan, source.tensors, device, compute)
        fingerprint = _folder.fingerprint(
            about["config"], settings_.FREE, about["teacher_sha256"], start.sha256(),
            packed.about,
        )  # fmt: skip
        session = Session(settings, folder, packed, network, made, device, fingerprint)
        remarks = (*_folder.changes(about, threads), *about["remarks"])
        if made.fixed:
            kinds = sorted({start.tensors[name].format.name for name in made.fixed})
            remarks += (f"{len(made.fixed)} tensors are not trained: {', '.join(kinds)} cannot be",)
        return Preparation(
            settings, folder, about["threads"], session, start, remarks, close.pop_all()
        )


@contextmanager
def _origins(settings: DistillSettings, teacher: Source) -> Iterator[Mapping[str, Tensor]]:
    """The weights that the student's file was rounded from, where it was rounded here."""
    if settings.is_file or settings.ternary:
        yield {}
    elif settings.init is None:
        yield teacher.tensors
    else:
        source = open_source(settings.init)
        try:
            yield source.tensors
        finally:
            source.close()
