"""What fits: the memory a model takes at every type, part by part, before it is run or fetched.

    estimate("model.gguf", ctx=8192)              on this machine, with what is free now
    estimate("70B", type="Q3_K_M", ram="32GB")    of a shape, on a machine of that size

Weights, cache, scratch and the program itself are reckoned apart, as the engine allocates them
(`trit.runtime.needs`), against the memory that is free and the cgroup's limit, not all there is.
Tokens per second are expected from the bandwidth: a token reads all weights once.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

from trit import recipe
from trit.errors import DoesNotFitError, UsageError
from trit.estimate._machine import Device, Machine, devices, left_for_models, machine
from trit.estimate._options import Asked, Option, largest_ctx, needs_of, option, pure, pure_option
from trit.estimate._subject import Announce, Subject, open_subject
from trit.recipe._mixes import MIXES
from trit.runtime.needs import Needs

__all__ = [
    "BITS",
    "RAM_GIB",
    "Asked",
    "Canyon",
    "Device",
    "Estimate",
    "Machine",
    "Option",
    "Subject",
    "asked_of",
    "devices",
    "estimate",
    "machine",
    "of_mix",
    "of_stored",
]

PathLike = str | os.PathLike[str]

DEFAULT_TYPE = "Q4_K_M"
DEFAULT_CTX = 4096
BITS = (32.0, 16.0, 8.0, 6.0, 5.0, 4.0, 3.0, 2.0, math.log2(3))
RAM_GIB = (8, 12, 16, 24, 32, 64)
SOLD_GIB = (4, *RAM_GIB, 48, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
TERNARY = ("TQ1_0", "TQ2_0")  # for models that were trained so
MOST_BITS = 8.5  # per weight, that a budget can use: those of Q8_0


@dataclass(frozen=True)
class Canyon:
    """The model at exactly `bits` per weight on machines of RAM_GIB, less what a system takes.

    contexts   by machine, the most positions that fit; 0: none
    """

    bits: float
    needs: Needs
    contexts: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        most = {str(gib): ctx for gib, ctx in zip(RAM_GIB, self.contexts, strict=True)}
        return {"bits_per_weight": self.bits, **self.needs.to_dict(), "largest_ctx_by_gib": most}


@dataclass(frozen=True)
class Estimate:
    """What was found.

    chosen    the file as it is, or the type asked for
    mixes     every named mix, the largest first
    canyon    by bits per weight, against machines of some sizes
    advice    sentences on what would fit where `chosen` does not; empty where it does
    """

    model: str
    kind: str
    note: str
    parameters: int
    context_length: int
    asked: Asked
    machine: Machine
    chosen: Option
    mixes: tuple[Option, ...]
    canyon: tuple[Canyon, ...]
    advice: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "model": self.model,
            "kind": self.kind,
            "note": self.note,
            "parameters": self.parameters,
            "context_length": self.context_length,
            "ctx": self.asked.ctx,
            "cache_type": self.asked.cache_type,
            "sequences": self.asked.sequences,
            "machine": self.machine.to_dict(),
            "chosen": self.chosen.to_dict(),
            "mixes": [each.to_dict() for each in self.mixes],
            "canyon": [each.to_dict() for each in self.canyon],
            "advice": list(self.advice),
        }


def estimate(
    model: PathLike,
    ctx: int | None = None,
    *,
    type: str | None = None,
    bpw: float | None = None,
    cache_type: str = "f16",
    sequences: int = 1,
    ram: str | int | None = None,
    device: str | None = None,
    measure: bool = True,
    on_notice: Announce | None = None,
) -> Estimate:
    """Reckon what a model takes and whether it fits; no weight is read.

    model       a GGUF file, a folder, a zoo name, hf:org/repo, config.json, or a shape: 70B
    ctx         positions of each sequence; None: 4096, or the model's own where that is less
    type, bpw   the mix, or exactly so many bits for every weight; None: a file as it is, else
                Q4_K_M
    sequences   contexts at a time
    ram, device a machine of that much memory, or a named one; None: this one, and what is free
    measure     whether this machine's bandwidth may be measured, below two seconds
    on_notice   is told what is fetched
    Errors: SourceError, InvalidFileError, UnsupportedError, UsageError, DoesNotFitError (a context
    beyond what the model was made for). Not fitting is an answer, not an error.
    """
    if type is not None and bpw is not None:
        raise UsageError(f"--type {type} and --bpw {bpw:g}: one of them.")
    if bpw is not None and not (math.isfinite(bpw) and 0 < bpw <= 32):
        raise UsageError(f"--bpw {bpw}: expected a number above 0, at most 32.")
    where = machine(ram, device, measure)
    with open_subject(model, on_notice) as subject:
        asked = asked_of(subject, ctx, cache_type, sequences)
        mixes = tuple(sorted(options(subject, asked, where), key=lambda o: -o.needs.weights))
        chosen = _chosen(subject, type, bpw, asked, where, mixes)
        return Estimate(
            model=subject.name,
            kind=subject.kind,
            note=subject.note,
            parameters=subject.parameters,
            context_length=subject.plan.context_length,
            asked=asked,
            machine=where,
            chosen=chosen,
            mixes=mixes,
            canyon=tuple(_canyon(subject, bits, asked, where.threads) for bits in BITS),
            advice=() if chosen.fits else _advice(subject, chosen, mixes, asked, where),
        )


def asked_of(subject: Subject, ctx: int | None, cache_type: str, sequences: int) -> Asked:
    """What was asked, checked against the model. Errors as for `estimate`."""
    most = subject.plan.context_length
    if (ctx is not None and ctx < 1) or sequences < 1:
        raise UsageError(f"ctx is {ctx}, sequences {sequences}; expected 1 or more.")
    if ctx is not None and ctx > most:
        raise DoesNotFitError(
            f"{subject.name}: a context of {ctx} tokens is asked for, the model was made for "
            f"{most}."
        )
    asked = Asked(min(DEFAULT_CTX, most) if ctx is None else ctx, cache_type, sequences)
    needs_of(subject, 0, asked, 1)  # the type of the cache is checked there
    return asked


def options(subject: Subject, asked: Asked, where: Machine) -> list[Option]:
    """The model at every named mix."""
    experts = any("_exps" in weight.name for weight in subject.weights)
    names = [name for name, mix in MIXES.items() if experts or not mix.dense]
    return [of_mix(subject, name, asked, where) for name in names]


def of_mix(subject: Subject, name: str, asked: Asked, where: Machine) -> Option:
    """The model at one named mix."""
    tensors = subject.mixed(name)
    return option(subject, name, tensors, asked, where, subject.file_bytes(name, tensors))


def of_stored(subject: Subject, asked: Asked, where: Machine) -> Option:
    """The model as it is stored."""
    return option(subject, subject.type, subject.stored(), asked, where, None)


def _chosen(
    subject: Subject,
    type: str | None,
    bpw: float | None,
    asked: Asked,
    where: Machine,
    mixes: tuple[Option, ...],
) -> Option:
    if bpw is not None:
        return pure_option(subject, bpw, asked, where)
    if type is None and subject.kind != "shape":
        return of_stored(subject, asked, where)
    name = recipe.mix(type or DEFAULT_TYPE).name
    found = next((each for each in mixes if each.type == name), None)
    if found is None:
        raise UsageError(f"--type {name} is for mixtures of experts; {subject.name} is none.")
    return found


def _canyon(subject: Subject, bits: float, asked: Asked, threads: int) -> Canyon:
    taken = pure(subject, bits, asked, threads)
    rooms = (left_for_models(gib << 30) for gib in RAM_GIB)
    contexts = (largest_ctx(subject, taken.weights, asked, room, threads) for room in rooms)
    return Canyon(bits, taken, tuple(contexts))


def _advice(
    subject: Subject, chosen: Option, mixes: tuple[Option, ...], asked: Asked, where: Machine
) -> tuple[str, ...]:
    """What would fit, from the least change to the greatest."""
    said = []
    if chosen.largest_ctx:
        said.append(f"A context of {chosen.largest_ctx:,} fits.")
    if asked.cache_type != "q8_0":
        smaller = Asked(asked.ctx, "q8_0", asked.sequences)
        if needs_of(subject, chosen.needs.weights, smaller, where.threads).total <= where.memory:
            said.append("--cache-type q8_0 makes it fit.")
    fitting = [each for each in mixes if each.fits and each.type not in TERNARY]
    room = where.memory - needs_of(subject, 0, asked, where.threads).total
    bits = 8 * room / subject.parameters
    if fitting:
        said.append(f"{fitting[0].type} fits ({fitting[0].bits:.2f} bits per weight).")
        if bits < MOST_BITS and not subject.is_quantized:
            said.append(f"'trit quantize --bpw {math.floor(100 * bits) / 100:.2f}' would fill it.")
    elif bits > 0:
        said.append(f"No mix fits: {bits:.2f} bits per weight are left; the least is "
                    f"{min(each.bits for each in mixes):.2f}.")  # fmt: skip
    else:
        said.append("Nothing fits: the context alone takes more.")
    wanted = next(
        (gib for gib in sorted(SOLD_GIB) if left_for_models(gib << 30) >= chosen.needs.total), 0
    )
    if wanted:
        said.append(f"{chosen.type} with this context wants a machine of {wanted} GiB.")
    return tuple(said)
