"""Quantize a Hugging Face folder into another, tensor by tensor."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trit import archs, formats
from trit.errors import InvalidFileError, UnsupportedError, UsageError
from trit.export._balance import Balance, balance
from trit.export._exported import MEASURED, Exported, check, folder_of, usual_quantizer
from trit.export._feedback import Feedback, order
from trit.files import quantized, safetensors
from trit.files._folder_writer import Entry, FolderWriter, check_free
from trit.files._hf_json import read_object
from trit.files._tensor import Tensor
from trit.files._weight_map import stays_inside
from trit.files.imatrix import Imatrix
from trit.files.quantized import Grid, awq, compressed_tensors
from trit.files.quantized import hqq as hqq_layout
from trit.files.source import FOLDER_PATTERNS, Source, open_source, trit_version
from trit.job.importance import DEFAULT
from trit.plan import MixtureOfExperts
from trit.quantizers import awq as awq_quantizer
from trit.quantizers import hqq, rtn

Floats = NDArray[np.float32]
PathLike = str | os.PathLike[str]
Progress = Callable[[str, int, int], None]

_COPIED = (*FOLDER_PATTERNS[1:], "README.md", "LICENSE*", "NOTICE*")
_DTYPES = {"f16": "float16", "bf16": "bfloat16", "f32": "float32"}


class _Writes(Protocol):
    """What a module of files.quantized offers for writing."""

    def config(
        self, bits: int, group: int, symmetric: bool, plain: list[str]
    ) -> dict[str, object]: ...
    def parts(
        self, rows: int, cols: int, bits: int, group: int, symmetric: bool, scale: str
    ) -> quantized.Parts: ...
    def arrays(self, grid: Grid, bits: int, scale: str) -> dict[str, NDArray[np.generic]]: ...


@dataclass(frozen=True)
class _Item:
    """A tensor of the source, its GGUF name, and whether it is a linear that is rounded."""

    tensor: Tensor
    name: str
    rounded: bool


class Export:
    """An opened folder and what becomes of each of its tensors; a context manager."""

    def __init__(
        self,
        src: PathLike,
        out: PathLike | None,
        target: str,
        *,
        bits: int = 4,
        group_size: int = 128,
        quantizer: str | None = None,
        symmetric: bool = False,
        imatrix: Imatrix | None = None,
        calibration: PathLike | None = None,
        threads: int | None = None,
    ) -> None:
        """Errors as for `export`, whatever can be told before anything is rounded."""
        quantizer = quantizer or usual_quantizer(target)
        check(target, bits, group_size, quantizer, symmetric)
        self.symmetric = symmetric
        self.target, self.bits, self.group, self.quantizer = target, bits, group_size, quantizer
        self.out = None if out is None else Path(out)
        self.threads = threads
        writers = {"awq": awq, "compressed-tensors": compressed_tensors, "hqq": hqq_layout}
        self._writes: _Writes = writers[target]
        self._data = imatrix
        self._calibration = calibration
        self._balance: Balance | None = None
        self._feedback: Feedback | None = None
        if (quantizer in MEASURED) != (calibration is not None):
            raise UsageError(
                "--quantizer awq and gptq measure inputs: they go with --calibration, and it with "
                "them."
            )
        if imatrix is not None and quantizer != "rtn":
            raise UsageError(f"--imatrix is of no use to {quantizer}: it weighs columns for rtn.")
        self._folder = folder_of(src)
        if self.out is not None:
            check_free(self.out)
        self.source: Source = open_source(self._folder)
        try:
            self._plan()
        except BaseException:
            self.source.close()
            raise

    def __enter__(self) -> Export:
        return self

    def __exit__(self, *_: object) -> None:
        self._weights_file.close()
        self.source.close()

    def _plan(self) -> None:
        path = self._folder / "config.json"
        self._config = read_object(path)
        self._weights_file = safetensors.open(self._folder)
        weights = quantized.open_weights(self._weights_file, self._config, path)
        plan = archs.plan(self.source)
        if any(isinstance(layer.feed_forward, MixtureOfExperts) for layer in plan.layers):
            raise UnsupportedError(
                f"{self._folder}: mixtures of experts are not written as folders yet. "
                "Write a GGUF: trit quantize SRC OUT.gguf --type Q4_K_M"
            )
        if "vision_config" in self._config:
            raise UnsupportedError(f"{self._folder}: models with images are not written yet.")
        rounded = {
            linear.weight for layer in plan.layers for linear in archs.linears(layer).values()
        }
        self._arch = archs.for_gguf(str(self.source.metadata["general.architecture"]))
        self.items = []
        for name in weights.names:
            gguf_name = self._arch.rename(name)
            if gguf_name is not None:  # else of no use
                self.items.append(_Item(weights[name], gguf_name, gguf_name in rounded))
        if self.quantizer == "gptq":  # written as they are rounded
            place = {name: number for number, name in enumerate(order(self.source))}
            self.items.sort(key=lambda item: place.get(item.name, -1))
        self._linears = [item for item in self.items if item.rounded]
        matrices = {item.tensor.format.name for item in self.items if len(item.tensor.shape) == 2}
        dtype = "bf16" if matrices == {"bf16"} else "f32" if matrices == {"f32"} else "f16"
        if self.target == "awq" or weights.about:
            dtype = "f16"
        # A model of float32 keeps its floats; its scales are float16 all the same, as is usual.
        self._dtype, self._scale = dtype, "f16" if dtype == "f32" else dtype
        self._warnings = []
        if weights.about:
            self._warnings.append(
                f"the source is quantized already ({weights.about}): rounding it again adds to the "
                "first loss. For the best result start from the F16, BF16 or F32 original"
            )
        for item in self._linears:
            self._check(item.tensor)

    def _check(self, tensor: Tensor) -> None:
        rows, cols = tensor.shape
        if cols % self.group:
            common = math.gcd(*(item.tensor.shape[1] for item in self._linears))
            fitting = [size for size in (128, 64, 32, 16, 8) if common % size == 0]
            hint = f"--group-size {fitting[0]} does." if fitting else "none of trit's does."
            raise UsageError(
                f"{tensor.name}: groups of {self.group} do not divide {cols} columns; {hint}"
            )
        if self.target == "awq" and rows % 8:
            raise UnsupportedError(
                f"{tensor.name}: AWQ packs eight rows to a word, got {rows}. "
                "Take --to compressed-tensors."
            )
        groups = rows * cols // self.group
        if self.target == "hqq" and self.bits != 3 and groups % hqq_layout.PER_WORD[self.bits]:
            raise UnsupportedError(
                f"{tensor.name}: HQQ packs {hqq_layout.PER_WORD[self.bits]} groups to a word, got "
                f"{groups} groups. Take another --group-size or --bits."
            )

    def _entries(self, item: _Item) -> list[Entry]:
        tensor = item.tensor
        if not item.rounded:
            return [Entry(tensor.name, self._dtype.upper(), tensor.shape)]
        rows, cols = tensor.shape
        parts = self._writes.parts(
            rows, cols, self.bits, self.group, self.symmetric, self._scale.upper()
        )
        module = tensor.name.removesuffix(".weight")
        return [Entry(f"{module}.{part}", *rest) for part, rest in parts.items()]

    def result(self, seconds: float = 0.0) -> Exported:
        """What the folder will be; nothing is written."""
        entries = [entry for item in self.items for entry in self._entries(item)]
        data, balance = self._data, self._balance
        measured = balance or self._feedback
        known = set() if data is None else set(data.entries)
        if measured is not None:
            known = {item.name for item in self._linears}
        return Exported(
            path=self.out,
            target=self.target,
            bits=self.bits,
            group_size=self.group,
            quantizer=self.quantizer,
            linears=len(self._linears),
            weights=sum(math.prod(item.tensor.shape) for item in self.items),
            bytes=sum(entry.nbytes for entry in entries),
            warnings=tuple(self._warnings),
            weighted=sum(item.name in known for item in self._linears),
            seconds=seconds,
            salient=None if balance is None else balance.salient,
            changed=None if measured is None else measured.changed,
        )

    def run(self, on_progress: Progress | None = None) -> Exported:
        """Write the folder."""
        assert self.out is not None, "an export without an output can only be reckoned"
        begun, report = time.perf_counter(), on_progress or (lambda what, done, total: None)
        total = sum(item.tensor.nbytes for item in self.items)
        digest = self.source.sha256(lambda done, of: report("reading the source", done, of))
        entries = [entry for item in self.items for entry in self._entries(item)]
        recipe: dict[str, Any] = {"to": self.target, "bits": self.bits, "group_size": self.group}
        recipe |= {"quantizer": self.quantizer, "symmetric": self.symmetric}
        if self._data is not None:
            recipe["imatrix_sha256"] = self._data.sha256
        if self._calibration is not None:
            text = None if os.fspath(self._calibration) == DEFAULT else Path(self._calibration)
            recipe["texts_sha256"] = self._measure(text, on_progress)
        metadata = {
            "trit.version": trit_version(),
            "trit.recipe": json.dumps(recipe, sort_keys=True),
            "trit.source.sha256": digest,
        }
        texts = {"config.json": json.dumps(self._new_config(), indent=2) + "\n"}
        copies = self._copies()
        done = 0
        with FolderWriter(self.out, entries, texts, copies, metadata) as writer:
            for item in self.items:
                for entry, data in self._arrays(item):
                    writer.add(entry, data)
                done += item.tensor.nbytes
                report("writing", done, total)
            writer.finish()
        return self.result(time.perf_counter() - begun)

    def _measure(self, text: Path | None, on_progress: Progress | None) -> list[str]:
        """What awq or gptq wants to know; sha256 of the texts."""
        if self.quantizer == "awq":
            self._balance = balance(
                self.source, text, self.bits, self.group, self.threads, on_progress
            )
            return self._balance.texts
        self._feedback = Feedback(text, self.bits, self.group, self._scale, self.threads)
        self._feedback.measure(self.source, on_progress)
        items = {item.name: item for item in self._linears}
        self._rounded = self._feedback.rounded(
            self.source,
            lambda name: self._weights(items[name]),
            lambda name, values: self._arch.transform(name, values, self.source.metadata),
        )
        return self._feedback.texts

    def _arrays(self, item: _Item) -> Iterator[tuple[Entry, NDArray[np.generic]]]:
        entries, tensor = self._entries(item), item.tensor
        if not item.rounded:
            yield entries[0], self._floats(tensor.name, self._weights(item), self._dtype)
            return
        arrays = self._writes.arrays(self._grid(item), self.bits, self._scale.upper())
        for entry in entries:
            data = arrays[entry.name.rpartition(".")[2]]
            if data.dtype == np.float32:
                data = self._floats(entry.name, np.ascontiguousarray(data), self._scale)
            yield entry, data

    def _weights(self, item: _Item) -> Floats:
        """With the factors of awq in them; InvalidFileError where one is no number."""
        tensor = item.tensor
        weights = tensor.decode()
        if self._balance is not None:
            # A norm may be saved less one, which its arch adds.
            zeros = np.zeros_like(weights) if weights.ndim == 1 else weights[:0]
            added = self._arch.transform(item.name, zeros, self.source.metadata)
            weights = self._balance.fold(item.name, weights, added)
        if not np.isfinite(weights).all():
            at = np.unravel_index(int(np.isfinite(weights).argmin()), weights.shape)
            raise InvalidFileError(
                self._folder, f"tensor {tensor.name!r} {[int(i) for i in at]}",
                f"expected a finite weight, got {weights[at]}",
            )  # fmt: skip
        return weights

    def _grid(self, item: _Item) -> Grid:
        if self._feedback is not None:
            name, grid = next(self._rounded)
            assert name == item.name, f"{name} was rounded, {item.name} is next"
            return grid
        weights = self._weights(item)
        if self._balance is not None:
            known = self._balance.grams[item.name]
            return awq_quantizer.quantize_groups(
                weights, self.bits, known, self.threads, self._scale
            )
        if self.quantizer == "hqq":
            return hqq.quantize_groups(
                weights, self.bits, self.group, self.threads, self._scale,
                whole_zeros=self.target != "hqq", zero_type=self._scale,
            )  # fmt: skip
        found = None
        if self._data is not None:
            found = self._data.importance(item.name, weights.shape)
        importance = None if found is None else found[0]
        return rtn.quantize_groups(
            weights, self.bits, self.group, importance, self.threads, self._scale, self.symmetric
        )

    def _floats(self, name: str, weights: Floats, dtype: str) -> NDArray[np.generic]:
        format = formats.get(dtype)
        assert format.encode is not None
        data = format.encode(weights)
        if dtype == "f16" and np.abs(weights).max(initial=0) > np.finfo(np.float16).max:
            raise UnsupportedError(
                f"{self._folder}: tensor {name!r} has weights up to {np.abs(weights).max():.6g}; "
                "float16, which AWQ folders are in, ends at 65504.\nTake --to compressed-tensors."
            )
        return data

    def _new_config(self) -> dict[str, Any]:
        config = quantized.without_settings(self._config)
        config.pop("torch_dtype", None)
        config["dtype"] = config["torch_dtype"] = _DTYPES[self._dtype]
        # Even a tied head is a linear of its own to the readers.
        config["quantization_config"] = self._writes.config(
            self.bits, self.group, self.symmetric, ["lm_head"]
        )
        return config

    def _copies(self) -> list[Path]:
        """Tokenizer, settings and card; InvalidFileError for a link that leads elsewhere."""
        found = {file for pattern in _COPIED for file in self._folder.glob(pattern)}
        copies = []
        for file in sorted(found):
            if not file.is_file() or file.name == "config.json" or ".index." in file.name:
                continue
            if not stays_inside(file):
                raise InvalidFileError(
                    file, "", f"expected a file of the folder, got a link to {file.resolve()}."
                )
            copies.append(file)
        return copies


def export(
    src: PathLike,
    out: PathLike | None,
    target: str,
    *,
    bits: int = 4,
    group_size: int = 128,
    quantizer: str | None = None,
    symmetric: bool = False,
    imatrix: Imatrix | None = None,
    calibration: PathLike | None = None,
    threads: int | None = None,
    dry_run: bool = False,
    on_progress: Progress | None = None,
) -> Exported:
    """Write the folder `src` as a folder of `target`: awq, compressed-tensors or hqq.

    `quantizer` is hqq for a folder of hqq, whose zeros need not be whole, else rtn.
    `symmetric` does without zeros (rtn on compressed-tensors only): a little worse, but some
    readers load or run nothing else. The quantizers awq and gptq measure inputs on `calibration`: a
    UTF-8 text, or "default" for trit's own and what the model writes; `imatrix` weighs columns for
    rtn.

    Errors: UsageError (an unknown target or quantizer, groups that do not divide a row, `out` is
    there), UnsupportedError (`src` is a GGUF, or a model that is not written so), InvalidFileError
    (source damaged, NaN or Inf), DoesNotFitError (disk).
    """
    with Export(
        src, out, target, bits=bits, group_size=group_size, quantizer=quantizer,
        symmetric=symmetric, imatrix=imatrix, calibration=calibration, threads=threads,
    ) as job:  # fmt: skip
        return job.result() if dry_run else job.run(on_progress)
