"""The student as a file: what it began as, with the bytes of every tensor that was trained.

A stock reader sees an ordinary GGUF of the same types. Under `trit.distill.*` it says where it is
from:

    .teacher, .teacher_sha256, .start_sha256    whom it learnt from, what it began as
    .steps, .best_step, .tokens, .seed          of the run; after which step it was best
    .texts, .provenance, .settings              what it was trained on, and how, as JSON
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from trit import recipe
from trit.files import gguf
from trit.files.gguf import Plain, Tensor, Value
from trit.files.source import Source
from trit.job.prepare import CARD_PREFIX
from trit.quantize import prepare_quantize
from trit.training import _folder, agreement, plot
from trit.training.distill import ternary
from trit.training.distill._result import DistillResult
from trit.training.distill.session import Session
from trit.training.export import values_of

PREFIX = "trit.distill."
TERNARY_START = "start-ternary.gguf"
EMBEDDING = "Q6_K"
WINDOWS = 64  # that the files are compared on at the end


def finish(session: Session, start: Source) -> DistillResult:
    """Write the best student of a run that has taken all its steps, and measure both files."""
    folder, settings = session.folder, session.settings
    best = session.choose_best(start.tensors)
    out, begun = folder / f"{folder.resolve().name}.gguf", start.path
    values, tensors = _values(session, start, best), list(_tensors(session, start, best))
    if settings.ternary:
        begun = folder / TERNARY_START
        _write_ternary(session, start.values, list(start.tensors.values()), begun)
        _write_ternary(session, values, tensors, out)
    else:
        gguf.write(out, values, tensors)
    windows = session.windows(1, WINDOWS)
    context = settings.context
    before = agreement.compare(session.teach, windows, begun, context)
    after = agreement.compare(session.teach, windows, out, context)
    own = agreement.compare(session.say, windows[: agreement.WINDOWS], out, context)
    return DistillResult(
        student=settings.flat()["student"], path=folder, gguf=out, gguf_bytes=out.stat().st_size,
        parameters=sum(each.numel() for each in session.student.network.weights.values()),
        steps=settings.steps, tokens=session.steps * session.step_tokens, best_step=best,
        kld_before=before.kld, kld_after=after.kld, same_top_before=before.same_top,
        same_top_after=after.same_top, compared=after.tokens, kld_torch=own.kld,
        seconds=session.seconds, fixed=tuple(session.student.fixed),
        plot=plot.draw(folder, "kld"),
    )  # fmt: skip


def _write_ternary(
    session: Session, values: Mapping[str, Plain | Value], tensors: list[Tensor], out: Path
) -> None:
    """A ternary file of float matrices, embedding and head in EMBEDDING."""
    arrays = {tensor.name: tensor.decode() for tensor in tensors}
    floats = out.with_name(out.name + ".f32")
    ternary.write(floats, values, ternary.rounded(session.student.network.plan, arrays))
    wishes = recipe.overrides((), EMBEDDING, EMBEDDING)
    with prepare_quantize(floats, out, session.settings.student, wishes) as job:
        job.run()
    floats.unlink()


def _tensors(session: Session, start: Source, best: int) -> Iterator[Tensor]:
    parts = session.student.parts if best else {}
    for name, tensor in start.tensors.items():
        if name in parts:
            yield Tensor(name, tensor.shape, tensor.format, parts[name].pack())
        else:
            yield tensor


def _values(session: Session, start: Source, best: int) -> dict[str, Plain | Value]:
    settings, about = session.settings, _folder.read_about(session.folder)
    facts = {
        "teacher": about["teacher"],
        "teacher_sha256": about["teacher_sha256"],
        "start_sha256": start.sha256(),
        "steps": settings.steps,
        "best_step": best,
        "tokens": session.steps * session.step_tokens,
        "seed": settings.seed,
        "texts": json.dumps(session.packed.about["texts"], sort_keys=True),
        "provenance": session.packed.about["provenance"],
        "settings": json.dumps(settings.flat(), sort_keys=True),
    }
    kept = {key: each for key, each in start.values.items() if not key.startswith(CARD_PREFIX)}
    return kept | values_of(PREFIX, facts)
