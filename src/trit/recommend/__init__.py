"""Which quant to take: quality, memory and speed weighed by a rule that is written down.

    recommend("hf:org/repo", ram="16GiB").words
    recommend(["q4.gguf", "q6.gguf"]).chosen

Quality is the mean KL divergence to the source in nats per token: measured where a file has a card
(`trit quantize --card`), else read off the curve of a model that was measured, and marked so. The
rule:

    1. It must fit with the context asked for, and HEADROOM of the memory to spare.
    2. Of what loses less than GOOD and writes READABLE tokens a second, the one that loses least;
       losses below EQUAL are equal, and of equals the fastest is taken.
    3. If there is none: of what loses less than GOOD and is at most a tenth slower than the fastest
       such, the one that loses least.
    4. If not even that fits, what loses least.

So nothing that fits is better than the choice in both quality and speed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from trit.errors import UsageError
from trit.estimate import (
    TERNARY,
    Asked,
    Machine,
    Option,
    Subject,
    asked_of,
    machine,
    of_mix,
    of_stored,
)
from trit.estimate._subject import Announce, open_subject
from trit.recommend._candidate import TRAINED, Candidate, beats, speed
from trit.recommend._curve import Curve, curve_for
from trit.recommend._words import described

__all__ = ["Candidate", "Recommendation", "beats", "recommend", "with_measured"]

PathLike = str | os.PathLike[str]

HEADROOM = 0.05  # of the memory there is
READABLE = 7.0  # tokens a second: about as fast as people read
CLOSE = 0.9  # of the fastest's speed
EQUAL = 0.005  # nats: a quality card does not tell such losses apart
GOOD = 0.1  # nats: the likeliest token stays the same in about 85 of 100 places (docs/quality.md)
MIXES = ("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_K_S", "IQ4_XS", "Q3_K_M", "Q3_K_S",
         "IQ3_XXS", "Q2_K", "IQ2_S", "IQ2_XXS")  # fmt: skip


@dataclass(frozen=True)
class Recommendation:
    """What to take (None: nothing fits), in words, and all that was weighed, least loss first.

    curve   of the model that stands for this one where nothing was measured on it
    """

    model: str
    chosen: Candidate | None
    words: tuple[str, str, str]
    candidates: tuple[Candidate, ...]
    asked: Asked
    machine: Machine
    curve: Curve

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "model": self.model,
            "curve": {"model": self.curve.model, "source": self.curve.source},
            "chosen": None if self.chosen is None else self.chosen.to_dict(),
            "words": list(self.words),
            "candidates": [each.to_dict() for each in self.candidates],
            "ctx": self.asked.ctx,
            "machine": self.machine.to_dict(),
            "rule": {
                "headroom": HEADROOM,
                "readable_tokens_per_second": READABLE,
                "equal_nats": EQUAL,
                "good_nats": GOOD,
            },
        }


def recommend(
    models: PathLike | Sequence[PathLike],
    ctx: int | None = None,
    *,
    cache_type: str = "f16",
    ram: str | int | None = None,
    device: str | None = None,
    measure: bool = True,
    on_notice: Announce | None = None,
) -> Recommendation:
    """Choose among the mixes that could be made of a model, or among files; no weight is read.

    models   what `estimate` takes. Of floats (a folder, an F16 file, a shape) the mixes are
             candidates; what is quantized already is one itself, and several files are taken as
             quants of one model
    The rest as for `estimate`, the errors too; UsageError for several that are not files.
    """
    names = [models] if isinstance(models, str | os.PathLike) else list(models)
    if not names:
        raise UsageError("no model to choose from.")
    where = machine(ram, device, measure)
    with ExitStack() as stack:
        subjects = [stack.enter_context(open_subject(name, on_notice)) for name in names]
        asked = asked_of(subjects[0], ctx, cache_type, 1)
        arch = str(subjects[0].metadata.get("general.architecture"))
        curve = curve_for(arch, subjects[0].parameters)
        found = _candidates(subjects, asked, where, curve)
    marked = [_marked(each, found) for each in found]
    chosen = pick(marked)
    model = subjects[0].name if len(subjects) == 1 else "these files"
    source = "SRC" if subjects[0].kind == "shape" else model  # of a shape there is nothing yet
    return Recommendation(
        model=model,
        chosen=chosen,
        words=described(model, source, chosen, marked, where, asked.ctx, READABLE),
        candidates=tuple(sorted(marked, key=lambda each: (each.kld, each.option.needs.weights))),
        asked=asked,
        machine=where,
        curve=curve,
    )


def with_measured(
    found: Recommendation, klds: Mapping[str, float], speeds: Mapping[str, float]
) -> Recommendation:
    """The rule again, with what was measured in place of what was expected.

    klds, speeds   by the path of a candidate: nats per token, and tokens per second of decoding
    """
    known = []
    for each in found.candidates:
        path = each.path or ""
        if path in klds:
            each = replace(each, kld=klds[path], basis="measured", measured=True)
        if path in speeds:
            each = replace(each, option=replace(each.option, tokens_per_second=speeds[path]))
        known.append(replace(each, beaten_by=None))
    marked = [_marked(each, known) for each in known]
    chosen = pick(marked)
    words = described(
        found.model, found.model, chosen, marked, found.machine, found.asked.ctx, READABLE
    )
    order = sorted(marked, key=lambda each: (each.kld, each.option.needs.weights))
    return replace(found, chosen=chosen, words=words, candidates=tuple(order))


def _candidates(
    subjects: Sequence[Subject], asked: Asked, where: Machine, curve: Curve
) -> list[Candidate]:
    first = subjects[0]
    if len(subjects) == 1 and not (first.kind == "file" and first.is_quantized):
        mixes = [of_mix(first, name, asked, where) for name in MIXES]
        return [_candidate(first, mix, _made(first, mix), where, curve) for mix in mixes]
    for each in subjects:
        if each.kind == "shape":
            raise UsageError(f"{each.name}: of several, each must be a file or a folder.")
        if each.parameters != first.parameters:
            raise UsageError(
                f"{first.name} has {first.parameters:,} weights, {each.name} {each.parameters:,}: "
                "expected quants of one model, since losses of two are not to be compared."
            )
    return [
        _candidate(each, of_stored(each, asked, where), each.name, where, curve)
        for each in subjects
    ]


def _made(subject: Subject, mix: Option) -> str | None:
    """The name of a model that is of this mix already."""
    named = subject.kind != "shape" and subject.type == mix.type
    return subject.name if named and subject.mixed(mix.type) == subject.stored() else None


def _candidate(
    subject: Subject, option: Option, path: str | None, where: Machine, curve: Curve
) -> Candidate:
    kld, basis, measured = 0.0, "floats", True
    if path is not None and subject.card is not None:
        kld, basis = subject.card.kld.mean, "card"
    elif path is not None and option.type in TERNARY:
        basis = TRAINED
    elif option.bits < 16:
        kld, measured = curve.kld(option.type, option.bits), False
        basis = "curve" if curve.reaches(option.bits) else "curve, prolonged"
    return Candidate(
        label=path or option.type,
        type=option.type,
        path=path,
        option=option,
        kld=kld,
        basis=basis,
        measured=measured,
        fits=option.needs.total <= (1 - HEADROOM) * where.memory,
    )


def _marked(one: Candidate, all_: Sequence[Candidate]) -> Candidate:
    """With the name of what is better in both, if anything that fits is."""
    better = [each for each in all_ if each.fits and beats(each, one)]
    return replace(one, beaten_by=better[0].label) if better else one


def pick(candidates: Sequence[Candidate]) -> Candidate | None:
    """By the rule above; None where nothing fits."""
    fitting = [each for each in candidates if each.fits]
    if not fitting:
        return None
    good = [each for each in fitting if each.kld < GOOD]
    speeds = [each.option.tokens_per_second for each in good]
    quick = [
        each for each, speed in zip(good, speeds, strict=True) if speed is None or speed >= READABLE
    ]
    if quick:
        return min(quick, key=lambda each: (max(each.kld, EQUAL), -speed(each)))
    if good:
        fastest = max(speed(each) for each in good)
        good = [each for each in good if speed(each) >= CLOSE * fastest]
    return min(good or fitting, key=lambda each: (each.kld, -speed(each)))
