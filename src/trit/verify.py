"""Prove what a file says of itself: that it was made from this source by its recipe.

    verify("model-Q4_K_M.gguf", "model-f16.gguf")

The source's sha256 is compared first. Then every tensor is made again by trit.recipe, a slab at a
time, and compared with the file's bytes as it comes: nothing is written, and the first tensor that
differs is named. Where the recipe cannot be followed (data that is not at hand, a way of rounding
that keeps no record), the quality card is measured again and compared in place of the bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trit import recipe, zoo
from trit.errors import InvalidFileError, TritError, UsageError
from trit.files import gguf
from trit.files import imatrix as importance_files
from trit.files._cutting import SPLIT_KEYS
from trit.files._encode import draw
from trit.files.gguf import GGUF
from trit.files.source import source_sha256, trit_version
from trit.job import Job, Progress
from trit.job.prepare import CARD_PREFIX
from trit.quantize import prepare_quantize

if TYPE_CHECKING:  # it brings an engine
    from trit.job.feedback import Feedback

PathLike = str | os.PathLike[str]

FOLLOWED = {"mix", "tensor_types", "output_type", "embedding_type", "pure", "imatrix_sha256"}
BUDGET = {"budget", "types"}  # in place of the mix and the rest
FEEDBACK = {"quantizer", "calibration", "calibration_sha256", "calibration_chunks"}
LEARNED = {"training"}  # beside FEEDBACK
# Keys that say who and with what, not what the tensors are; their values are the file's own.
OWN_KEYS = ("trit.version", "trit.recipe", "trit.source.sha256", "quantize.imatrix.file")
ALIKE = 0.01  # of a figure of the card: other instruction sets round otherwise
ALIKE_NATS = 5e-4


@dataclass(frozen=True)
class Proof:
    """What was proved.

    by        "bytes": header and all tensors are the same; "card": its figures are
    because   why the bytes could not be made again, None for "bytes"
    bytes     of the file
    """

    path: Path
    source: Path
    by: str
    because: str | None
    tensors: int
    bytes: int
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "path": str(self.path),
            "source": str(self.source),
            "proved_by": self.by,
            "because": self.because,
            "tensors": self.tensors,
            "bytes": self.bytes,
            "notes": list(self.notes),
        }


def verify(
    path: PathLike,
    source: PathLike,
    *,
    imatrix: PathLike | None = None,
    calibration: PathLike | None = None,
    card: bool = False,
    threads: int | None = None,
    on_progress: Progress | None = None,
    measure_card: Callable[[Path, Path], Any] | None = None,
) -> Proof:
    """Prove a GGUF file that `quantize` wrote against the source it was made from.

    source        as for `quantize`
    imatrix       the importance data it was made with; None: as named in the file, beside it
    calibration   the text that errors were fed back on; None: as named in the file, beside it
    card          measure the quality card again too, even where the bytes are proved
    measure_card  measures a file against a source; None: evaluate.card.measure
    Errors: UsageError (the file says not how it was made, or there is no card where one is needed),
    TritError (another source, a tensor or figure that differs), and those of `quantize`.
    """
    report = on_progress or (lambda what, done, total: None)
    base = zoo.resolve(os.fspath(source), report)
    with gguf.open(path) as file:
        asked = _recipe(file)
        _check_source(file, base, report)
        notes = _notes(file)
        data, because = _data(file, asked, imatrix)
        because = because or _text_is_missing(file, asked, calibration)
        if because is None:
            feedback = _feedback(file, asked, calibration, threads)
            with _job(base, asked, data, feedback, threads) as job:
                _compare(file, job, report)
        tensors, size = len(file.tensors), sum(p.stat().st_size for p in file.paths)
    if because is not None or card:
        _check_card(Path(path), base, because, threads, measure_card)
    by = "card" if because is not None else "bytes and card" if card else "bytes"
    return Proof(Path(path), base, by, because, tensors, size, notes)


def _recipe(file: GGUF) -> dict[str, Any]:
    text = file.metadata.get("trit.recipe")
    if not isinstance(text, str):
        raise UsageError(
            f"{file.path} says not how it was made (no key trit.recipe): only files of "
            "'trit quantize' can be verified."
        )
    try:
        asked = json.loads(text)
    except ValueError:
        asked = None
    if isinstance(asked, dict) and (isinstance(asked.get("mix"), str) or _is_budget(asked)):
        return asked
    problem = f"expected the JSON of a recipe with its mix or budget, got {text[:60]!r}"
    raise InvalidFileError(file.path, "key 'trit.recipe'", problem)


def _is_budget(asked: dict[str, Any]) -> bool:
    budget, types = asked.get("budget"), asked.get("types")
    names = {"fit", "bpw", "max_kld", "fit_ram", "ctx"}
    return (
        isinstance(budget, dict)
        and budget.keys() <= names
        and all(isinstance(value, int | float) for value in budget.values())
        and isinstance(types, dict)
        and all(isinstance(each, list) for each in types.values())
    )


def _job(
    source: Path,
    asked: dict[str, Any],
    data: importance_files.Imatrix | None,
    feedback: Feedback | None,
    threads: int | None,
) -> Job:
    if "mix" not in asked:
        from trit import budget

        return budget.again(source, asked, imatrix=data, feedback=feedback, threads=threads)
    wishes = recipe.overrides(
        asked.get("tensor_types", ()),
        asked.get("output_type"),
        asked.get("embedding_type"),
        asked.get("pure", False),
    )
    return prepare_quantize(
        source, None, asked["mix"], wishes, imatrix=data, threads=threads, force=True,
        feedback=feedback,
    )  # fmt: skip


def _text(file: GGUF, asked: dict[str, Any], given: PathLike | None) -> Path | None:
    """The text that errors were fed back on; None: trit's own."""
    from trit import calibrate

    if given is not None:
        return Path(given)
    if asked.get("calibration_sha256") == calibrate.text_about(None).sha256:
        return None
    return file.path.parent / Path(str(asked.get("calibration"))).name


def _text_is_missing(file: GGUF, asked: dict[str, Any], given: PathLike | None) -> str | None:
    """Why error feedback cannot be repeated; None: it can, or there was none."""
    if not asked.keys() & FEEDBACK:
        return None
    if asked.get("quantizer") == "learned":
        return "its rounding was learned, which other machines do not repeat to the bit"
    if asked.get("quantizer") != "gptq":
        return f"its quantizer, {asked.get('quantizer')}, cannot be followed from the file"
    from trit import calibrate

    text, wanted = _text(file, asked, given), str(asked.get("calibration_sha256"))
    if text is not None and not text.is_file():
        return f"its calibration text {text.name} (sha256 {wanted[:16]}…) is not at hand"
    if calibrate.text_about(text).sha256 != wanted:
        return f"{text} is not the calibration text it was made with"
    return None


def _feedback(
    file: GGUF, asked: dict[str, Any], given: PathLike | None, threads: int | None
) -> Feedback | None:
    if not asked.keys() & FEEDBACK:
        return None
    from trit.job.feedback import Feedback

    return Feedback(_text(file, asked, given), int(asked["calibration_chunks"]), threads)


def _check_source(file: GGUF, source: Path, report: Progress) -> None:
    recorded = file.metadata.get("trit.source.sha256")
    got = source_sha256(source, lambda done, total: report("reading the source", done, total))
    if got != recorded:
        raise TritError(
            f"{file.path} was made from another source: it names sha256 {recorded}, {source} has "
            f"{got}. Name the source it was made from."
        )


def _notes(file: GGUF) -> tuple[str, ...]:
    made, here = file.metadata.get("trit.version"), trit_version()
    return () if made == here else (f"written by trit {made}, verified by {here}",)


def _data(
    file: GGUF, asked: dict[str, Any], given: PathLike | None
) -> tuple[importance_files.Imatrix | None, str | None]:
    """The importance data of the recipe, and why the recipe cannot be followed."""
    known = FEEDBACK | LEARNED | (FOLLOWED if "mix" in asked else BUDGET | {"imatrix_sha256"})
    unknown = sorted(set(asked) - known)
    if unknown:
        return None, f"its recipe has {', '.join(unknown)}, which cannot be followed from the file"
    wanted = asked.get("imatrix_sha256")
    if wanted is None:
        if given is not None:
            raise UsageError(f"{file.path} was made without importance data; leave out --imatrix.")
        return None, None
    name = file.metadata.get("quantize.imatrix.file")
    path = Path(given) if given is not None else file.path.parent / Path(str(name)).name
    if not path.is_file():
        return None, f"its importance data {name} (sha256 {wanted[:16]}…) is not at hand"
    data = importance_files.load(path)
    if data.sha256 != wanted:
        if given is not None:
            raise UsageError(
                f"{path} is not the importance data of {file.path}: sha256 {data.sha256}, expected "
                f"{wanted}."
            )
        return None, f"{path} is not the importance data it was made with"
    return data, None


def _compare(file: GGUF, job: Job, report: Progress) -> None:
    """TritError at the first byte that differs, with the name of its tensor or key."""
    own = {
        key: value
        for key, value in file.values.items()
        if key in OWN_KEYS or key.startswith(CARD_PREFIX)
    }
    header = job.header(own)
    if _header(file, len(header)) != header:
        raise TritError(
            f"{file.path}: its keys or its list of tensors differ from what its recipe makes "
            f"of this source{_age(file)}."
        )
    total = sum(tensor.nbytes for tensor in file.tensors.values())
    done = 0
    for info, pieces in job.made():
        data = np.asarray(file.tensors[info.name].data).reshape(-1)
        at = 0
        for piece in pieces:
            flat = piece.reshape(-1)
            if not np.array_equal(data[at : at + len(flat)], flat):
                raise TritError(
                    f"{file.path}: tensor {info.name!r} is not what its recipe makes of this "
                    f"source; it is the first that differs{_age(file)}."
                )
            at += len(flat)
            done += len(flat)
            report("making it again", done, total)


def _header(file: GGUF, count: int) -> bytes:
    """The first bytes of the file; of shards, of the file that they make together."""
    if len(file.paths) > 1 or SPLIT_KEYS[0] in file.values:
        whole = {key: value for key, value in file.values.items() if key not in SPLIT_KEYS}
        return draw(whole, list(file.tensors.values())).header
    with file.paths[0].open("rb") as raw:
        return raw.read(count)


def _age(file: GGUF) -> str:
    notes = _notes(file)
    return f" ({notes[0]})" if notes else ""


def _check_card(
    path: Path,
    source: Path,
    because: str | None,
    threads: int | None,
    measure: Callable[[Path, Path], Any] | None,
) -> None:
    """Measure again; TritError for a figure that is not as the card says."""
    from trit.evaluate import card as cards

    with gguf.open(path) as file:
        said = cards.read(file.metadata, list(file.tensors))
    if said is None:
        why = "" if because is None else f", and {because}"
        raise UsageError(f"{path} has no quality card{why}: nothing can be proved.")
    found = measure(path, source) if measure else cards.measure(path, source, threads)
    if (said.text_sha256, said.ctx, said.tokens) != (found.text_sha256, found.ctx, found.tokens):
        raise TritError(f"{path}: its card was measured on another text than this trit's.")
    for name in cards.FIGURES:
        _require_alike(path, name, getattr(said, name).mean, getattr(found, name).mean)
    for name, error in said.tensors.items():
        _require_alike(path, f"error of tensor {name!r}", error, found.tensors[name])


def _require_alike(path: Path, name: str, said: float, found: float) -> None:
    if not abs(said - found) <= max(ALIKE * abs(found), ALIKE_NATS):
        raise TritError(f"{path}: its card says {name} {said:.6g}; measured: {found:.6g}.")
