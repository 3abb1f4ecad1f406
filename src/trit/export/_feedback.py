"""The linears of a folder rounded with error feedback, on a text that goes through the model once.

As for GGUF files (trit/job/feedback.py): each layer is measured on what the rounded ones before it
give, and a linear is rounded with feedback where its output error falls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trit import calibrate, formats
from trit.files._tensor import Tensor
from trit.files.quantized import Grid
from trit.files.source import Source
from trit.job.feedback import CHUNKS, SINKS, check_room, spread
from trit.quantizers import gptq

Floats = NDArray[np.float32]


@dataclass
class Feedback:
    """How it is measured, and what came of it.

    text       a UTF-8 file; None: trit's passages and what the model writes
    texts      sha256 of what was measured on
    changed    linears for which feedback was better
    """

    text: Path | None
    bits: int
    group: int
    scale_type: str
    threads: int | None = None
    texts: list[str] = field(default_factory=list)
    changed: int = 0

    def measure(self, source: Source, on_progress: calibrate.OnProgress | None) -> None:
        """Get the text ready. Errors as for calibrate.data."""
        given = calibrate.data(source, self.text, threads=self.threads, on_progress=on_progress)
        self.texts = [part.sha256 for part in given.texts]
        self._tokens = spread(given.tokens, CHUNKS)

    def rounded(
        self, source: Source, read: Callable[[str], Floats], placed: Callable[[str, Floats], Floats]
    ) -> Iterator[tuple[str, Grid]]:
        """The linears by GGUF name, in the order of `order`, as the walk comes to them.

        `read` gives a linear's weights with rows as the folder has them, `placed` puts rows where
        a GGUF has them. Errors as for calibrate.walk and gptq.factorize.
        """
        f32 = formats.get("f32")
        for layer in calibrate.walk(
            source, self._tokens, gram=True, sinks=SINKS, threads=self.threads
        ):
            done = {}
            for inputs in layer.inputs:
                assert inputs.gram is not None
                check_room(source, inputs)
                share = gptq.damping(len(inputs.gram[0]), int(inputs.counts[0]))
                factor = gptq.factorize(inputs.gram[0], share, threads=self.threads)
                for name in inputs.names:
                    choice = gptq.quantize_groups(
                        read(name), self.bits, self.group, factor, self.threads, self.scale_type
                    )
                    self.changed += choice.fed_back
                    values = np.ascontiguousarray(placed(name, choice.grid.weights()), np.float32)
                    done[name] = Tensor(name, values.shape, f32, values.view(np.uint8))
                    yield name, choice.grid
            layer.replace(done)


def order(source: Source) -> list[str]:
    """The linears of all layers by GGUF name, in the order in which they are rounded."""
    plan = calibrate.plan_for(source)
    return [name for index in range(len(plan.layers)) for name in calibrate.weights(plan, index)]
