"""Importance data measured and written: per tensor and column the sum of squared inputs.

    imatrix("model-f16.gguf", "importance.gguf", Path("text.txt"))

The file is llama.cpp's (see files/imatrix.py). With `gram` the Gram matrices of the inputs are
written too, to a GGUF of their own:

    general.type          "trit.gram"
    trit.gram.inputs      one text per input: the names of the weights that share it, by spaces
    NAME.gram             float32 (cols, cols), of experts (experts, cols, cols): Σ x xᵀ, symmetric;
                          NAME is the first of those weights
    NAME.counts           float32 (matrices, 1): how many x

Broken off, it goes on where it stood (_unfinished.py), and comes to the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trit import engine, formats, zoo
from trit.calibrate._data import Data, data, passages
from trit.calibrate._inputs import Floats, Inputs, shared
from trit.calibrate._model import chunk_tokens, plan_for
from trit.calibrate._unfinished import Unfinished
from trit.calibrate._walk import OnProgress, walk
from trit.calibrate._weights import weights
from trit.errors import InvalidFileError, TritError, UsageError
from trit.evaluate._evaluation import Text
from trit.evaluate._text import read_text
from trit.files import gguf
from trit.files import imatrix as files
from trit.files._journal import journal_of
from trit.files.gguf import Plain, TensorInfo, Value, ValueType
from trit.files.source import Source, core_sha256, open_source, refuse_overwrite, trit_version
from trit.machine.processors import default_threads
from trit.plan import Plan

PathLike = str | os.PathLike[str]

FINGERPRINT = "trit.calibration.fingerprint"
NAME_BYTES = 127  # of a data set's name: what llama.cpp's tools keep of it


@dataclass(frozen=True)
class Importance:
    """What was measured, and all it depends on.

    path       of the file; `gram` of that with Gram matrices, if there is one
    entries    weights that have data
    unseen     experts that no token went to, by weight; nothing is known of their inputs
    silent     how many columns were 0 throughout, by weight that has such
    tokens     measured: `chunks` of `ctx`
    resumed    layers that an interrupted job had measured; `seconds` are without them
    notes      what was not as one may expect, in words
    """

    path: Path
    gram: Path | None
    model: str
    texts: tuple[Text, ...]
    ctx: int
    chunks: int
    entries: int
    unseen: dict[str, list[int]]
    silent: dict[str, int]
    exact: bool
    isa: str
    threads: int
    seconds: float
    resumed: int = 0
    notes: tuple[str, ...] = field(default=())

    @property
    def tokens(self) -> int:
        return self.ctx * self.chunks

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "path": os.fspath(self.path),
            "gram": None if self.gram is None else os.fspath(self.gram),
            "model": self.model,
            "texts": [asdict(text) for text in self.texts],
            "ctx": self.ctx,
            "chunks": self.chunks,
            "tokens": self.tokens,
            "entries": self.entries,
            "unseen_experts": self.unseen,
            "silent_columns": self.silent,
            "exact": self.exact,
            "isa": self.isa,
            "threads": self.threads,
            "seconds": round(self.seconds, 3),
            "resumed_layers": self.resumed,
            "notes": list(self.notes),
        }


def imatrix(
    model: PathLike,
    out: PathLike,
    text: PathLike | None = None,
    *,
    ctx: int | None = None,
    chunks: int | None = None,
    output: bool = False,
    exact: bool = False,
    gram: PathLike | None = None,
    threads: int | None = None,
    on_progress: OnProgress | None = None,
    said: Callable[[str], None] | None = None,
) -> Importance:
    """Measure importance data and write it to `out`, which is whole or absent.

    Interrupted after some minutes, the same call goes on; it loses a minute's work or a layer.

    model        a GGUF file, a Hugging Face folder, or a name of the zoo, pulled when missing
    text         a str is the text itself, a path object names a UTF-8 file; None: trit's passages
                 and text that the model writes
    ctx          tokens of a piece of text, None: 512, or the model's own context if that is less
    chunks       how many pieces, None: all
    output       of the output matrix too (or the embedding in its place)
    exact        multiply with float weights as floats, not rounded to Q8_0: a third of the speed
    gram         also write the Gram matrices to this file. They are large: columns² × 4 bytes each
    on_progress  called with (what, done, total), in tokens' worth of work
    said         told in words what of an unfinished job is kept, or not
    Errors: as for `data` and `walk`, and those of writing; all but those of the weights before
    anything is measured.
    """
    if gram is not None and Path(gram).resolve() == Path(out).resolve():
        raise UsageError(f"{gram} is the output itself: name another file for the Gram matrices")
    begun = time.perf_counter()
    source = open_source(zoo.resolve(os.fspath(model)))
    with ExitStack() as stack:
        stack.callback(source.close)
        targets = [Path(out), *([] if gram is None else [Path(gram)])]
        for target in targets:
            refuse_overwrite(target, (*source.paths, text))
        plan = plan_for(source, ctx)
        mark = fingerprint(source, text, ctx, chunks, output, exact)
        job = json.dumps([mark, text_name(text), gram is not None])
        unfinished = Unfinished(Path(out), job, said)
        given = unfinished.data() or data(source, text, ctx, chunks, threads, on_progress)
        keys = _keys(given, exact, output, mark)
        shapes = entries(plan, output)
        names = [_short(text.name) for text in given.texts]
        count, length = given.tokens.shape
        writer = stack.enter_context(files.begin(out, shapes, names, count, length, keys, job))
        writers, grams = [writer], None
        with unfinished.guarding(writers, given):
            if gram is not None and (writer.remaining or not _is_done(Path(gram), mark)):
                grams = stack.enter_context(_begin_gram(gram, plan, keys, job))
                writers.append(grams)
            first, last = _first_open(plan, writers), len(plan.layers) - 1
            if first is not None:
                for layer in walk(
                    source, given.tokens, gram=grams is not None, exact=exact, threads=threads,
                    folder=Path(out).parent, begin=unfinished.begin(first), on_progress=on_progress,
                ):  # fmt: skip
                    found = list(layer.inputs)
                    if output and layer.index == last:
                        found.append(_head(source, plan, layer.outputs))
                    for inputs in found:
                        for name in inputs.names:
                            files.put(writer, name, inputs.sums, inputs.counts)
                        if grams is not None and inputs.gram is not None:
                            _put_gram(grams, inputs)
                    if layer.index < last:
                        unfinished.keep(layer.index + 1, layer.outputs)
            unseen, silent = _gaps(writer, shapes)
            writer.seal()
            if grams is not None:
                grams.finish()
            unfinished.discard()
            writer.publish()
        writer.release()
    return Importance(
        path=Path(out), gram=None if gram is None else Path(gram), model=os.fspath(source.path),
        texts=given.texts, ctx=length, chunks=count, entries=len(shapes), unseen=unseen,
        silent=silent, exact=exact, isa=engine.isa(), threads=threads or default_threads(),
        seconds=time.perf_counter() - begun, notes=given.notes,
        resumed=last + 1 if first is None else unfinished.resumed,
    )  # fmt: skip


def entries(plan: Plan, output: bool = False) -> dict[str, tuple[int, int]]:
    """The weights that are measured, and the shape of their sums: (matrices, columns)."""
    found = {
        name: (inputs.matrices, inputs.cols)
        for layer in plan.layers
        for inputs in shared(layer)
        for name in inputs.names
    }
    return found | ({plan.head.weight: (1, plan.head.cols)} if output else {})


def text_name(text: PathLike | None) -> str:
    """What the first data set of a file is called."""
    return _short(text_about(text).name)


def text_about(text: PathLike | None) -> Text:
    """Name, size and hash of a text, or of trit's passages."""
    return passages()[1] if text is None else read_text(text)[1]


def _short(name: str) -> str:
    return name.encode("utf-8", "replace")[-NAME_BYTES:].decode("utf-8", "ignore")


def fingerprint(
    source: Source,
    text: PathLike | None,
    ctx: int | None = None,
    chunks: int | None = None,
    output: bool = False,
    exact: bool = False,
) -> str:
    """Of all that importance data depend on: the model, the text, the settings, this program."""
    about = text_about(text)
    what = [about.sha256, text is None, chunk_tokens(source, ctx), chunks, output, exact]
    program = [trit_version(), core_sha256(), engine.isa()]
    return hashlib.sha256(json.dumps([program, source.fingerprint(), what]).encode()).hexdigest()


def is_measured(path: Path, mark: str) -> bool:
    """Whether a file holds the importance data of that fingerprint."""
    try:
        return files.load(path).metadata.get(FINGERPRINT) == mark
    except InvalidFileError:
        return False


def _keys(given: Data, exact: bool, output: bool, mark: str) -> dict[str, Plain | Value]:
    """How it was measured, under trit.*"""
    about = {
        "texts": [{"name": text.name, "sha256": text.sha256} for text in given.texts],
        "exact": exact,
        "output": output,
        "isa": engine.isa(),
    }
    return {
        "trit.version": trit_version(),
        "trit.calibration": json.dumps(about, sort_keys=True),
        FINGERPRINT: mark,
    }


def _head(source: Source, plan: Plan, outputs: Floats) -> Inputs:
    """Statistics of the output matrix: of the normed hidden states behind the last layer."""
    norm = plan.output_norm
    weight = source.tensors[norm.weight].decode().reshape(-1)
    sums = np.zeros((1, plan.width))
    for first in range(0, len(outputs), 4096):
        part = outputs[first : first + 4096].astype(np.float64)
        part /= np.sqrt(np.square(part).mean(axis=1, keepdims=True) + norm.eps)
        sums[0] += np.square(part * weight).sum(axis=0)
    if not np.isfinite(sums).all():
        raise TritError(f"{source.path}: tensor {norm.weight!r} gives values that are not finite.")
    return Inputs((plan.head.weight,), sums, np.array([len(outputs)]))


def _first_open(plan: Plan, writers: Sequence[gguf.Writer]) -> int | None:
    """The first layer of which something is not written; None if all is."""
    left = {info.name.rpartition(".")[0] for each in writers for info in each.remaining}
    for index in range(len(plan.layers)):
        if not left.isdisjoint(weights(plan, index)):
            return index
    return len(plan.layers) - 1 if left else None  # the output matrix comes with the last


def _gaps(
    writer: gguf.Writer, shapes: Mapping[str, tuple[int, int]]
) -> tuple[dict[str, list[int]], dict[str, int]]:
    """Experts unseen and columns silent, by weight that has such, of what was written."""
    unseen: dict[str, list[int]] = {}
    silent: dict[str, int] = {}
    for name, shape in shapes.items():
        sums, counts = writer.read(f"{name}.in_sum2"), writer.read(f"{name}.counts")
        assert sums is not None and counts is not None
        inputs = Inputs(
            (name,),
            sums.view("<f4").reshape(shape).astype(np.float64),
            counts.view("<f4").astype(np.int64),
        )
        if inputs.unseen:
            unseen[name] = inputs.unseen
        if inputs.silent:
            silent[name] = inputs.silent
    return unseen, silent


def _is_done(path: Path, mark: str) -> bool:
    """Whether the Gram matrices had their name when the job was killed, the sums not yet theirs."""
    try:
        with gguf.open(path, model=False) as file:
            found = file.metadata.get("general.type"), file.metadata.get(FINGERPRINT)
    except InvalidFileError:
        return False
    if found != ("trit.gram", mark):
        return False
    journal_of(path).unlink(missing_ok=True)  # it stays a moment longer than the partial file
    return True


def _begin_gram(
    path: PathLike, plan: Plan, keys: dict[str, Plain | Value], job: str
) -> gguf.Writer:
    infos, lines = list(_gram_infos(plan)), []
    for layer in plan.layers:
        lines += [" ".join(inputs.names) for inputs in shared(layer)]
    about: dict[str, Plain | Value] = {
        "general.type": "trit.gram",
        "trit.gram.inputs": Value(ValueType.STRING, lines),
    }
    return gguf.Writer(path, about | keys, infos, job=job)


def _gram_infos(plan: Plan) -> Iterator[TensorInfo]:
    f32 = formats.get("f32")
    for layer in plan.layers:
        for inputs in shared(layer):
            square = (inputs.cols, inputs.cols)
            shape = (inputs.matrices, *square) if inputs.matrices > 1 else square
            yield TensorInfo(f"{inputs.names[0]}.gram", shape, f32)
            yield TensorInfo(f"{inputs.names[0]}.counts", (inputs.matrices, 1), f32)


def _put_gram(writer: gguf.Writer, inputs: Inputs) -> None:
    name = inputs.names[0]
    for part, values in ((f"{name}.gram", inputs.gram), (f"{name}.counts", inputs.counts)):
        if not writer.holds(part):
            writer.add(part, np.ascontiguousarray(values, "<f4").view(np.uint8))
