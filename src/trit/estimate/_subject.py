"""What is planned with: a file, a folder, a repository's config.json, or the shape of a model.

No weight is read: names, shapes and keys are enough. Of a repository on Hugging Face that is not
on this machine, config.json alone is fetched.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np

from trit import archs, formats, recipe, zoo
from trit.errors import SourceError, UsageError
from trit.evaluate import card
from trit.evaluate.card import Card
from trit.files._encode import draw
from trit.files._hf_json import read_object
from trit.files._tensor import TensorInfo
from trit.files.quantized import without_settings
from trit.files.source import Source, open_source
from trit.job.prepare import copied_values, weights_of
from trit.plan import Plan
from trit.recipe import Overrides, Weight
from trit.synth.shapes import PLANNED, Shape, of_config, planned

Announce = Callable[[str], None]
PathLike = str | os.PathLike[str]


class Subject:
    """A model to plan with; a context manager.

    name, kind   what it is called; "file", "folder" or "shape"
    note         what is not known for certain, in words
    metadata     GGUF keys
    weights      every tensor as a recipe sees it
    plan         for all the positions the model has
    card         measured against its source, where the file has one
    """

    def __init__(
        self,
        name: str,
        kind: str,
        metadata: Mapping[str, object],
        weights: Sequence[Weight],
        plan: Plan,
        source: Source | None = None,
        note: str = "",
    ) -> None:
        self.name, self.kind, self.note = name, kind, note
        self.metadata, self.weights, self.plan = metadata, tuple(weights), plan
        self._source = source
        self.card: Card | None = None
        if source is not None:
            self.card = card.read(metadata, list(source.tensors))

    def __enter__(self) -> Subject:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._source is not None:
            self._source.close()

    @property
    def parameters(self) -> int:
        """Weights of the model; rope's divisors are none."""
        sizes = (w.shape for w in self.weights if not w.name.startswith("rope_"))
        return sum(int(np.prod(shape, dtype=object)) for shape in sizes)

    @property
    def is_quantized(self) -> bool:
        """Whether most of what is stored is rounded already."""
        stored = self.stored()
        rounded = sum(i.nbytes for i in stored.values() if i.format.name not in recipe.FLOATS)
        return 2 * rounded > sum(info.nbytes for info in stored.values())

    @property
    def type(self) -> str:
        """What the file calls itself (Q4_K_M), else the format of most of its bytes."""
        number = self.metadata.get("general.file_type")
        if isinstance(number, int) and recipe.is_mix(str(number)):
            return recipe.mix(str(number)).name
        sizes: dict[str, int] = {}
        for info in self.stored().values():
            sizes[info.format.name] = sizes.get(info.format.name, 0) + info.nbytes
        return max(sizes, key=lambda name: sizes[name]).upper()

    def stored(self) -> dict[str, TensorInfo]:
        """The tensors as they are in the file; of a shape, as floats of 16 bits."""
        return {w.name: TensorInfo(w.name, w.shape, formats.get(w.format)) for w in self.weights}

    def mixed(self, mix: str) -> dict[str, TensorInfo]:
        """The tensors in the types of a named mix. UsageError for a name that there is not."""
        wishes = Overrides()
        chosen = recipe.choose(mix, self.metadata, self.weights, wishes=wishes)
        return {
            choice.name: TensorInfo(choice.name, weight.shape, formats.get(choice.format))
            for choice, weight in zip(chosen, self.weights, strict=True)
        }

    def file_bytes(self, mix: str, infos: Mapping[str, TensorInfo]) -> int | None:
        """Of the file that `trit quantize` would write without a recipe's keys: header, padding
        and tensors. None for a shape, whose vocabulary is not known."""
        if self._source is None:
            return None
        values = copied_values(self._source, recipe.mix(mix).file_type)
        return draw(values, list(infos.values())).size


def open_subject(model: PathLike, announce: Announce | None = None) -> Subject:
    """Open what `model` names: a path, a zoo name, hf:org/repo[:QUANT], a shape such as 70B or
    llama-3-8b, a config.json.

    Errors: SourceError (no such model, or one of the zoo that is not here), InvalidFileError,
    UnsupportedError, UsageError (a size out of range).
    """
    text = os.fspath(model)
    path = Path(text).expanduser()
    if path.name == "config.json" and path.is_file():
        return _of_config(text, path)
    if path.exists():
        return _of_files(text, path)
    here = zoo.local(text)
    if here is not None:
        return _of_files(text, here)
    if text.startswith("hf:"):
        found = zoo.describe(text, announce)
        return _of_config(text, found) if found.name == "config.json" else _of_files(text, found)
    shape = planned(text)
    if shape is not None:
        return _of_shape(shape, text)
    entry = zoo.models().get(text.lower())
    if entry is not None:
        raise SourceError(
            f"{text} is not on this machine: its file has {entry.size_bytes:,} bytes. "
            f"'trit pull {entry.name}' fetches it."
        )
    raise UsageError(
        f"{text}: no such file, folder or zoo model, and no shape. Shapes are sizes such as 70B, "
        f"or {', '.join(PLANNED)}; hf:org/repo names a Hugging Face repository."
    )


def _of_files(name: str, path: Path) -> Subject:
    with ExitStack() as stack:
        source = open_source(path)
        stack.callback(source.close)
        plan = archs.plan(source)
        kind = "file" if source.kind == "gguf" else "folder"
        made = Subject(name, kind, source.metadata, weights_of(source), plan, source)
        stack.pop_all()
        return made


def _of_config(name: str, path: Path) -> Subject:
    given = read_object(path)
    classes = given.get("architectures")
    hf_class = str(classes[0]) if isinstance(classes, list) and classes else ""
    arch = archs.for_hf(hf_class, given)
    config = arch.complete(without_settings(given))
    keys = arch.metadata_from_hf(config, path=path)
    extra = arch.extra_tensors(config, path=path)
    return _of_sizes(name, of_config(hf_class, config), keys | {"general.architecture": arch.ARCH},
                     extra, "from config.json alone")  # fmt: skip


def _of_shape(shape: Shape, name: str) -> Subject:
    shape.check()
    keys, extra = shape.keys()
    keys |= {"general.architecture": shape.arch}
    note = shape.note or f"the shape of {shape.name}"
    return _of_sizes(name, shape, keys, extra, note)


def _of_sizes(
    name: str,
    shape: Shape,
    keys: Mapping[str, object],
    extra: Mapping[str, archs.Floats],
    note: str,
) -> Subject:
    sizes = shape.tensors() | {n: array.shape for n, array in extra.items()}
    arch = archs.for_gguf(str(keys["general.architecture"]))
    plan = arch.plan(keys, sizes, extra.__getitem__, path=name)
    weights = [Weight(n, size, "f32" if len(size) == 1 else "f16") for n, size in sizes.items()]
    return Subject(name, "shape", keys, weights, plan, note=note)
