"""Sensitivities and rounding errors of every tensor, measured once and kept in a file.

`NAME.sensitivity.json` lies beside the output and bears the source's name, so that every later
budget finds it. It is replaced after each layer; what an interrupted run has measured is not
measured again. A fingerprint of the source, the texts, the settings and this program guards it.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trit import calibrate, engine, recipe
from trit.budget._menu import errors, menu, sample, spread
from trit.budget._mixtures import LOSSES, corrected, mixtures
from trit.budget._probe import Coarse, Prober, places
from trit.calibrate._data import passages
from trit.calibrate._model import chunk_tokens
from trit.errors import UsageError
from trit.evaluate._text import read_text
from trit.files._whole import whole
from trit.files.imatrix import Imatrix
from trit.files.source import Source, core_sha256, trit_version
from trit.recipe import Weight

PathLike = str | os.PathLike[str]
OnProgress = Callable[[str, int, int], None]

SUFFIX = ".sensitivity.json"
VERSION = 1

WINDOWS = 4  # of text, of as many tokens as a chunk of calibration
SCORED = 1024  # positions at which outputs are compared, in all of them
PROBED_ERROR = 0.02  # of the weights: what a probe aims at; about 3 bits
PROBES = ("q3_k", "q4_0", "q8_0", "f16")  # the first that fits the rows
MOST_TIMES = 8.0  # by how much a fine format's errors may be multiplied


@dataclass
class Sensitivities:
    """What is known of a model.

    tensors   by name: `errors` by format (see _menu), and, once measured, `kld` of the probe, its
              `format` and the `times` its errors were multiplied by
    mixtures  whole models measured: `predicted` and `measured` divergence
    """

    fingerprint: str
    about: dict[str, Any]
    tensors: dict[str, dict[str, Any]] = field(default_factory=dict)
    mixtures: list[dict[str, float]] = field(default_factory=list)

    def cost(self, name: str, format: str) -> float:
        """The predicted divergence from one tensor in a format, in nats per token."""
        entry = self.tensors[name]
        return float(self._slope(name) * entry["errors"][format])

    def _slope(self, name: str) -> float:
        entry = self.tensors[name]
        if "kld" in entry:
            return _slope(entry)
        like = [_slope(e) for n, e in self.tensors.items() if "kld" in e and kind(n) == kind(name)]
        every = [_slope(e) for e in self.tensors.values() if "kld" in e]
        return float(np.median(like or every or [1.0]))

    def predicted(self, cost: float) -> float:
        """The divergence of a whole model whose tensors' costs sum to `cost`."""
        return corrected(cost, self.mixtures)

    def to_json(self) -> str:
        """As the file has it."""
        return json.dumps(
            {
                "version": VERSION,
                "fingerprint": self.fingerprint,
                **self.about,
                "mixtures": self.mixtures,
                "tensors": self.tensors,
            },
            indent=1,
        )


def _slope(entry: Mapping[str, Any]) -> float:
    """Divergence per relative error."""
    spoiled = entry["errors"][entry["format"]] * entry["times"] ** 2
    return float(entry["kld"] / spoiled) if spoiled > 0 else 0.0


def kind(name: str) -> str:
    """A tensor's name without its layer."""
    parts = name.split(".")
    return ".".join(parts[2:] if parts[0] == "blk" and len(parts) > 2 else parts)


def place(source: Source, folder: Path) -> Path:
    """Where the sensitivities of a model are kept."""
    return folder / (stem(source.path) + SUFFIX)


def stem(path: Path) -> str:
    """What files about a model begin with."""
    return path.resolve().name.removesuffix(".gguf")


def quantizable(source: Source) -> list[str]:
    """The tensors whose format is chosen: those that a mix would round."""
    return [
        name
        for name, tensor in source.tensors.items()
        if recipe.is_quantizable(Weight(name, tensor.shape, tensor.format.name))
    ]


def fingerprint(source: Source, text: Path | None, importance: Imatrix | None) -> str:
    """Of all that the figures depend on."""
    sha256 = (passages()[1] if text is None else read_text(text)[1]).sha256
    settings = [WINDOWS, SCORED, PROBED_ERROR, PROBES, MOST_TIMES, chunk_tokens(source)]
    program = [VERSION, trit_version(), core_sha256(), engine.isa()]
    data = None if importance is None else importance.sha256
    what = [program, source.fingerprint(), sha256, data, settings]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()


def load(path: Path, mark: str) -> Sensitivities | None:
    """What the file holds, if it is of that fingerprint; None for another or none.

    UsageError if it is not a file of ours: it is in the way.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        found = json.loads(content)
        if found["fingerprint"] != mark:
            return None
        known = ("version", "fingerprint", "mixtures", "tensors")
        about = {key: value for key, value in found.items() if key not in known}
        return Sensitivities(mark, about, dict(found["tensors"]), list(found["mixtures"]))
    except (ValueError, KeyError, TypeError):
        raise UsageError(
            f"{path} is in the way: it does not hold sensitivities. Move it, or remove it to "
            "measure again."
        ) from None


def save(found: Sensitivities, path: Path) -> None:
    """Replace the file at once."""
    with whole(path) as file:
        file.write(found.to_json().encode())


def measured(
    source: Source,
    path: Path,
    text: Path | None,
    importance: Imatrix | None,
    threads: int | None = None,
    on_progress: OnProgress | None = None,
) -> Sensitivities:
    """The sensitivities of a model on a text, from the file where it has them.

    text         None: trit's passages
    on_progress  called with (what, done, total), in tensors
    Errors: those of `calibrate.data` and of the engine; TritError for outputs that are no numbers.
    """
    report = on_progress or (lambda what, done, total: None)
    mark = fingerprint(source, text, importance)
    names = quantizable(source)
    found = load(path, mark) or Sensitivities(mark, {"model": source.path.name})
    columns = {}
    for name in names:
        of = None if importance is None else importance.importance(name, source.tensors[name].shape)
        if of is not None:
            columns[name] = of
    for done, name in enumerate(names):
        if name not in found.tensors:
            report("rounding samples", done, len(names))
            tensor = source.tensors[name]
            parts = sample(tensor, columns.get(name))
            found.tensors[name] = {"errors": errors(parts, menu(tensor.cols), threads)}
    save(found, path)
    _probe(source, path, text, found, names, columns, threads, report)
    return found


def _probe(
    source: Source,
    path: Path,
    text: Path | None,
    found: Sensitivities,
    names: list[str],
    columns: Mapping[str, NDArray[np.float32]],
    threads: int | None,
    report: OnProgress,
) -> None:
    plan = calibrate.plan_for(source)
    inside = {name for _, each in places(plan) for name in each}
    probed = [name for name in names if name in inside]
    missing = [name for name in probed if "kld" not in found.tensors[name]]
    if not missing and found.about.get("complete"):
        return
    tokens = windows(source, text)
    ctx = tokens.shape[1]
    first = ctx // 8
    step = max(1, -(-tokens.shape[0] * (ctx - first) // SCORED))
    wanted = {name: probe(found.tensors[name]["errors"]) for name in missing}
    total, done = len(probed) + len(LOSSES), len(probed) - len(missing)
    report("measuring sensitivities", done, total)
    prober = Prober(source, tokens, first, step, threads)
    found.about |= {"windows": len(tokens), "ctx": ctx, "scored": prober.scored}
    begun = time.process_time()

    def keep() -> None:
        nonlocal begun
        now = time.process_time()
        seconds = found.about.get("cpu_seconds", 0.0) + now - begun
        begun, found.about["cpu_seconds"] = now, round(seconds, 3)
        save(found, path)

    for klds in prober.layers(wanted, columns) if missing else ():
        for name, kld in klds.items():
            how = wanted[name]
            found.tensors[name] |= {"kld": kld, "format": how.format, "times": how.times}
        keep()
        done += len(klds)
        report("measuring sensitivities", done, total)
    shapes = {name: source.tensors[name].shape for name in probed}
    costs = {n: {f: found.cost(n, f) for f in found.tensors[n]["errors"]} for n in probed}
    for predicted, made in mixtures(shapes, costs)[len(found.mixtures) :]:
        # One after the other: beside the model there is room for one that is rounded.
        tensors = {n: prober.coarse(n, Coarse(f), columns.get(n)) for n, f in made.items()}
        kld = prober.mixture(tensors)
        found.mixtures.append({"predicted": predicted, "measured": kld})
        keep()
        done += 1
        report("measuring sensitivities", done, total)
    found.about["complete"] = True
    keep()


def probe(lost: Mapping[str, float]) -> Coarse:
    """How to spoil a tensor of these rounding errors."""
    format = next(name for name in PROBES if name in lost)
    if not 0 < lost[format] < PROBED_ERROR:
        return Coarse(format)
    return Coarse(format, min(MOST_TIMES, (PROBED_ERROR / lost[format]) ** 0.5))


def windows(source: Source, text: Path | None) -> NDArray[np.int32]:
    """int32 (windows, ctx): pieces of the text, spread over it."""
    given = "\n\n".join(passages()[0]) if text is None else text
    tokens = calibrate.data(source, given).tokens
    return tokens[spread(len(tokens), WINDOWS)]
