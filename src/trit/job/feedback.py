"""Tensors rounded with error feedback, layer by layer: each on what the rounded layers before give.

A text goes through the model once (calibrate.walk). Behind each layer its inputs' Gram matrices are
known; its matrices are rounded (quantizers/gptq.py), and the text goes through the layer again with
the values that were written, into the next. What is no matrix of a layer, embedding and output
matrix among them, is left to the caller.

A job that goes on runs the layers that are finished with their bytes from the unfinished file, and
comes to the same Gram matrices, and bytes, as one that never stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trit import calibrate
from trit.calibrate import Inputs, LayerPass
from trit.errors import DoesNotFitError
from trit.files._tensor import Tensor, TensorInfo
from trit.files.source import Source
from trit.job.transcode import Bytes, Transcoder
from trit.machine.memory import free_memory
from trit.plan import Layer, MixtureOfExperts, Plan
from trit.quantizers import gptq
from trit.recipe import Choice

CHUNKS = 64  # of 512 tokens: fewer fit the text they come from (docs/log.md)

# One with Gram matrices, a quicker one with the new values, beside what is done once for a layer.
PASSES = 1.25

SINKS = 8.0  # see calibrate.walk: such tokens stand for a part of what hundreds of others see

# Of a matrix of one input, for formats of one block: what is to be tried.
Hessians = dict[tuple[int, int], gptq.Hessian]
Written = Callable[[TensorInfo], Bytes | None]  # a tensor's new bytes, or None


@dataclass(frozen=True)
class Feedback:
    """How error feedback is measured.

    text     a UTF-8 file; None: trit's passages and what the model writes
    chunks   pieces of it to use, evenly spread
    threads  None: those the process may use
    """

    text: Path | None = None
    chunks: int = CHUNKS
    threads: int | None = None

    def settings(self, source: Source) -> list[object]:
        """All that the bytes depend on beside the source and the formats."""
        return [calibrate.fingerprint(source, self.text), self.chunks, *gptq.SETTINGS, SINKS]

    def recipe(self) -> dict[str, object]:
        """What is written into the file about it."""
        about = calibrate.text_about(self.text)
        return {
            "quantizer": "gptq",
            "calibration": about.name if self.text is None else self.text.name,
            "calibration_sha256": about.sha256,
            "calibration_chunks": self.chunks,
        }

    def feeds(self, tensor: TensorInfo, info: TensorInfo) -> bool:
        """Whether a tensor of the source is rounded with feedback into what `info` says."""
        return info.format.name in gptq.WRITTEN and tensor.format is not info.format

    def check(self, source: Source) -> None:
        """UnsupportedError where it cannot be done, before anything is."""

    def seconds(self, source: Source, infos: Sequence[TensorInfo]) -> float:
        """What is to be added to the time of plain rounding, judged by measuring the first layer.

        Feedback's products are reckoned to go as fast as those of Gram matrices. A text by the
        model itself, where none is given, comes on top.
        """
        plan = calibrate.plan_for(source)
        layers = self.layers(source, plan, infos)
        count = sum(map(bool, layers))
        if count == 0:
            return 0.0
        once, few = (_first_layer_seconds(source, pieces, self.threads) for pieces in (1, 3))
        chunk = max(0.0, few - once) / 2
        gram = calibrate.chunk_tokens(source) * _gram_products(plan.layers[0])
        rounding = _products(plan, layers) / gram
        return count * (once + PASSES * chunk * self.chunks) + chunk * rounding

    def remarks(self, choices: Sequence[Choice]) -> list[str]:
        """What is not done as one may expect, in words."""
        return []

    def layers(
        self, source: Source, plan: Plan, infos: Sequence[TensorInfo]
    ) -> list[list[TensorInfo]]:
        """What is rounded with feedback, by layer, in running order."""
        fed = {info.name: info for info in infos if self.feeds(source.tensors[info.name], info)}
        return [
            [fed[name] for name in calibrate.weights(plan, index) if name in fed]
            for index in range(len(plan.layers))
        ]

    def rounded(
        self,
        source: Source,
        infos: Sequence[TensorInfo],
        transcoder: Transcoder,
        written: Written,
        partial: Path,
        on_progress: calibrate.OnProgress | None = None,
    ) -> Iterator[tuple[str, Bytes]]:
        """The tensors of the layers that are not written yet, one by one, and their new bytes.

        `written` is asked again after each. `partial`: the unfinished file; hidden states that
        memory has no room for go beside it. `on_progress` is called with ("rounding", bytes, bytes
        in all). Errors: as for calibrate.data, calibrate.walk and Transcoder.pieces.
        """
        report = on_progress or (lambda what, done, total: None)
        layers = self.layers(source, calibrate.plan_for(source), infos)
        left = {info.name for infos in layers for info in infos if written(info) is None}
        open_layers = [
            index for index, infos in enumerate(layers) if any(info.name in left for info in infos)
        ]
        if not open_layers:
            return
        given = calibrate.data(source, self.text, threads=self.threads)
        total = sum(info.nbytes for infos in layers for info in infos)
        done = sum(info.nbytes for infos in layers for info in infos if info.name not in left)

        def ready(index: int) -> Mapping[str, Tensor]:
            return {} if index in open_layers else finished(layers[index], written)

        for layer in calibrate.walk(
            source, spread(given.tokens, self.chunks), gram=True, sinks=SINKS, ready=ready,
            threads=self.threads, folder=partial.parent,
        ):  # fmt: skip
            if layer.index in open_layers:
                todo = {info.name: info for info in layers[layer.index] if written(info) is None}
                for name, data in self._layer(source, layer, todo, transcoder):
                    yield name, data
                    done += todo[name].nbytes
                    report("rounding", done, total)
                if layer.index == open_layers[-1]:
                    return
                layer.replace(finished(layers[layer.index], written))

    def _layer(
        self,
        source: Source,
        layer: LayerPass,
        todo: Mapping[str, TensorInfo],
        transcoder: Transcoder,
    ) -> Iterator[tuple[str, Bytes]]:
        for inputs in layer.inputs:
            names = [name for name in inputs.names if name in todo]
            if not names:
                continue
            hessians: Hessians = {}  # those of the input before are gone
            check_room(source, inputs)
            for name in names:
                yield (
                    name,
                    self._tensor(source.tensors[name], todo[name], inputs, hessians, transcoder),
                )

    def _tensor(
        self,
        tensor: Tensor,
        info: TensorInfo,
        inputs: Inputs,
        hessians: Hessians,
        transcoder: Transcoder,
    ) -> Bytes:
        """The better of both roundings of each matrix; `hessians` keeps what one input gives."""
        assert inputs.gram is not None
        data = np.concatenate(list(transcoder.pieces(tensor, info.format, inputs.means)))
        rows = tensor.rows // len(inputs.gram)
        for matrix, gram in enumerate(inputs.gram):
            if inputs.counts[matrix] == 0:
                continue  # nothing is known
            key = matrix, info.format.block_weights
            if key not in hessians:
                hessians.clear()  # one matrix's are held: of experts none is used again
                hessians[key] = gptq.hessian(
                    gram, int(inputs.counts[matrix]), info.format.block_weights, self.threads
                )
            part = slice(matrix * rows, (matrix + 1) * rows)
            weights = tensor.decode_rows(part.start, part.stop)
            name = info.format.name
            choice = gptq.choose(weights, name, hessians[key], data[part], self.threads)
            data[part] = choice.data
        return data


def _gram_products(layer: Layer) -> float:
    """Multiplications of a layer's Gram matrices per token, which goes to `top_k` experts."""
    part = layer.feed_forward
    chosen = part.top_k if isinstance(part, MixtureOfExperts) else 1
    return sum(min(each.matrices, chosen) * each.cols**2 / 2 for each in calibrate.shared(layer))


def _products(plan: Plan, layers: Sequence[Sequence[TensorInfo]]) -> float:
    """Multiplications of feedback: factors, half a square of columns per row, judging, descent."""
    total = 0.0
    for layer, infos in zip(plan.layers, layers, strict=True):
        rows = {info.name: info.rows for info in infos}
        for each in calibrate.shared(layer):
            fed = sum(rows.get(name, 0) for name in each.names)
            total += each.cols**2 * fed * (gptq.SWEEPS + 2.0)
            total += each.matrices * each.cols**3 / 3 if fed else 0.0  # in double, twice the time
    return total


def _first_layer_seconds(source: Source, chunks: int, threads: int | None) -> float:
    """What so many chunks take in the first layer, opened and measured."""
    tokens = np.zeros((chunks, calibrate.chunk_tokens(source)), np.int32)
    begun = time.perf_counter()
    for _ in calibrate.walk(source, tokens, gram=True, threads=threads):
        break
    return time.perf_counter() - begun


def spread(tokens: NDArray[np.int32], chunks: int) -> NDArray[np.int32]:
    """`chunks` of the rows, evenly spread over all of them; all where they are fewer."""
    if len(tokens) <= chunks:
        return tokens
    return tokens[np.arange(chunks) * len(tokens) // chunks]


def finished(infos: Sequence[TensorInfo], written: Written) -> dict[str, Tensor]:
    """The tensors of a layer that is done, as they are in the file."""
    found = {}
    for info in infos:
        data = written(info)
        assert data is not None, f"{info.name} was to be written"
        shaped = data.reshape(*info.shape[:-1], info.row_bytes)
        found[info.name] = Tensor(info.name, info.shape, info.format, shaped)
    return found


def check_room(source: Source, inputs: Inputs) -> None:
    """DoesNotFitError where memory has no room for the factor of a Gram matrix."""
    needed = gptq.factor_bytes(inputs.sums.shape[1], int(inputs.counts.max()))
    free = free_memory()
    if free is not None and needed > free:
        raise DoesNotFitError(
            f"{source.path}: the Gram matrix of {inputs.names[0]!r} needs {needed:,} bytes to be "
            f"factorized, {free:,} are free. Do without: --quantizer rtn, or use a larger machine."
        )
