"""Tensors whose rounding is learned, layer by layer, each on what the rounded layers before give.

Two walks go side by side, the float model's and that of the file in the making. Each layer is
rounded with error feedback first (feedback.py), which is what training begins with and falls back
to (quantizers/learned.py). What is trained on is kept beside the unfinished file (files/_chain.py):
a job that goes on trains on the same numbers, and comes to the same bytes on the same machine.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from trit import calibrate
from trit.calibrate import LayerPass
from trit.errors import DoesNotFitError, TritError
from trit.files._chain import Chain, States
from trit.files._tensor import Tensor, TensorInfo
from trit.files.source import Source, core_sha256, trit_version
from trit.job.feedback import SINKS, Feedback, Written, finished, spread
from trit.job.transcode import Bytes, Transcoder
from trit.machine.processors import default_threads
from trit.plan import Plan
from trit.quantizers import gptq, learned
from trit.quantizers.learned import Settings, Start
from trit.recipe import Choice

# Beside its products, what a step costs: decoding, gradients of parameters, the memory they pass.
OVERHEAD = 1.7
PROBE_TOKENS = 512


@dataclass(frozen=True)
class Learning(Feedback):
    """Error feedback, then training. See Feedback."""

    training: Settings = field(default_factory=Settings)

    def settings(self, source: Source) -> list[object]:
        """All that the bytes depend on beside the source and the formats."""
        import torch

        about = [asdict(self.training), torch.__version__, self._threads()]
        return [*super().settings(source), "learned", *about]

    def recipe(self) -> dict[str, object]:
        """What is written into the file about it."""
        import torch

        how = {**asdict(self.training), "threads": self._threads(), "torch": torch.__version__}
        return super().recipe() | {"quantizer": "learned", "training": how}

    def check(self, source: Source) -> None:
        """UnsupportedError where torch is missing, or the model has experts."""
        learned.require_torch()
        learned.require_dense(source.path, calibrate.plan_for(source))

    def remarks(self, choices: Sequence[Choice]) -> list[str]:
        """Which formats of the choices are not trained."""
        from trit.quantizers._trainable import TRAINABLE

        others = {each.format for each in choices if each.format in gptq.WRITTEN - TRAINABLE}
        return [
            f"{name} cannot be trained: those tensors keep error feedback"
            for name in sorted(others)
        ]

    def seconds(self, source: Source, infos: Sequence[TensorInfo]) -> float:
        """See Feedback; with training, judged by the speed of one product of floats."""
        measuring = super().seconds(source, infos)
        trained = [info for info in infos if self.learns(source.tensors[info.name], info)]
        if not trained:
            return measuring
        weights = sum(info.rows * info.cols for info in trained)
        ctx = calibrate.chunk_tokens(source)
        looks = (learned.LOOKS + 1) * learned.MOST_HELD_OUT
        passes = 3 * self.training.steps + looks  # there, and back twice
        work = OVERHEAD * passes * 2.0 * weights * ctx
        return measuring + work / _rate(trained[0], self._threads())

    def learns(self, tensor: TensorInfo, info: TensorInfo) -> bool:
        """Whether a tensor of the source is trained into what `info` says."""
        from trit.quantizers._trainable import TRAINABLE

        matrix = sum(n > 1 for n in info.shape[:-1]) == 1
        return matrix and info.format.name in TRAINABLE and self.feeds(tensor, info)

    def rounded(
        self,
        source: Source,
        infos: Sequence[TensorInfo],
        transcoder: Transcoder,
        written: Written,
        partial: Path,
        on_progress: calibrate.OnProgress | None = None,
    ) -> Iterator[tuple[str, Bytes]]:
        """See Feedback. `on_progress` is called with ("learning", bytes, bytes in all)."""
        chain = Chain(partial, self._job(source, infos))
        try:
            yield from self._layers(source, infos, transcoder, written, partial, chain, on_progress)
        except TritError as error:
            if not isinstance(error, DoesNotFitError):
                chain.discard()
            raise
        chain.discard()

    def _layers(
        self,
        source: Source,
        infos: Sequence[TensorInfo],
        transcoder: Transcoder,
        written: Written,
        partial: Path,
        chain: Chain,
        on_progress: calibrate.OnProgress | None,
    ) -> Iterator[tuple[str, Bytes]]:
        plan = calibrate.plan_for(source)
        layers = self.layers(source, plan, infos)
        open_layers = _open(layers, written)
        if not open_layers:
            return
        given = calibrate.data(source, self.text, threads=self.threads)
        tokens = spread(given.tokens, self.chunks)
        learned.require_pieces(len(tokens))
        progress = _Progress(layers, self.training.steps, on_progress)
        kept = _usable(chain.load(), open_layers[0], tokens.size, plan)

        def ready(index: int) -> Mapping[str, Tensor]:
            return {} if index in open_layers else finished(layers[index], written)

        plain = calibrate.walk(
            source, tokens, threads=self.threads, folder=partial.parent,
            begin=None if kept is None else (kept.index, kept.arrays["plain"]),
        )  # fmt: skip
        walk = calibrate.walk(
            source, tokens, gram=True, sinks=SINKS, ready=ready, threads=self.threads,
            folder=partial.parent,
            begin=None if kept is None else (kept.index, kept.arrays["rounded"]),
        )  # fmt: skip
        del kept
        for aim, layer in zip(plain, walk, strict=True):
            if layer.index in open_layers:
                todo = {info.name: info for info in layers[layer.index]}
                made = dict(self._layer(source, layer, todo, transcoder))
                made |= self._train(source, plan, aim, layer, todo, made, tokens.shape, progress)
                for name, data in made.items():
                    if written(todo[name]) is None:
                        yield name, data
                if layer.index == open_layers[-1]:
                    return
                layer.replace(finished(layers[layer.index], written))
            if layer.index + 1 <= open_layers[-1]:
                states = {"plain": aim.outputs, "rounded": layer.outputs}
                chain.save(States(layer.index + 1, states))

    def _train(
        self,
        source: Source,
        plan: Plan,
        aim: LayerPass,
        layer: LayerPass,
        todo: Mapping[str, TensorInfo],
        made: Mapping[str, Bytes],
        shape: tuple[int, ...],
        progress: _Progress,
    ) -> dict[str, Bytes]:
        """The new bytes of the matrices that are trained, begun from those that feedback `made`.

        All of them, even where some are written: together they come to the same again.
        """
        starts = {
            name: Start(_matrix(source.tensors[name].decode()), todo[name].format.name, data)
            for name, data in made.items()
            if self.learns(source.tensors[name], todo[name])
        }
        if not starts:
            return {}
        found = learned.train(
            plan, layer.plan, source.tensors, starts,
            layer.hidden.reshape(*shape, -1), aim.outputs.reshape(*shape, -1),
            self.training, self._threads(), lambda step: progress(layer.index, step),
        )  # fmt: skip
        return found.data

    def _threads(self) -> int:
        return self.threads or default_threads()

    def _job(self, source: Source, infos: Sequence[TensorInfo]) -> str:
        types = [[info.name, info.format.name] for info in infos]
        program = [trit_version(), core_sha256()]
        return json.dumps([program, source.fingerprint(), types, self.settings(source)])


class _Progress:
    """Steps of layers as bytes of the file."""

    def __init__(
        self,
        layers: Sequence[Sequence[TensorInfo]],
        steps: int,
        report: calibrate.OnProgress | None,
    ) -> None:
        self._ends = np.cumsum([0, *(sum(info.nbytes for info in infos) for infos in layers)])
        self._steps, self._report = steps, report

    def __call__(self, index: int, step: int) -> None:
        if self._report is not None:
            start, end = self._ends[index : index + 2].tolist()
            done = start + (end - start) * step // self._steps
            self._report("learning", done, int(self._ends[-1]))


def _open(layers: Sequence[Sequence[TensorInfo]], written: Written) -> list[int]:
    """The layers of which something is not written."""
    return [i for i, infos in enumerate(layers) if any(written(info) is None for info in infos)]


def _usable(kept: States | None, first: int, tokens: int, plan: Plan) -> States | None:
    """The states, if what is to be done begins with them or after."""
    if kept is None or kept.index > first:
        return None
    shape = (tokens, plan.width)
    return kept if all(each.shape == shape for each in kept.arrays.values()) else None


def _matrix(weights: learned.Floats) -> learned.Floats:
    return weights.reshape(-1, weights.shape[-1])


def _rate(info: TensorInfo, threads: int) -> float:
    """Operations per second of a product with a matrix of this shape, in torch."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        x, weights = torch.ones(PROBE_TOKENS, info.cols), torch.ones(info.rows, info.cols)
        torch.nn.functional.linear(x, weights)  # starts threads
        begun = time.perf_counter()
        torch.nn.functional.linear(x, weights)
        seconds = time.perf_counter() - begun
    finally:
        torch.set_num_threads(before)
    return 2.0 * PROBE_TOKENS * info.rows * info.cols / seconds
