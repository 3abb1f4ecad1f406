"""A model opened for measuring: its file, its plan, its engine."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trit import archs
from trit.engine import Engine, Rows
from trit.errors import DoesNotFitError
from trit.files import checkpoint

if TYPE_CHECKING:
    from trit.runtime.tokenizer import Tokenizer


class Opened:
    """A model of a path (GGUF or Hugging Face folder) on an engine for `ctx` positions.

    A context manager. Raises InvalidFileError or UnsupportedError for a model trit cannot run,
    DoesNotFitError where it was made for fewer positions than `ctx`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        ctx: int,
        threads: int | None,
        cache_type: str = "f16",
    ) -> None:
        with ExitStack() as stack:
            self.file = stack.enter_context(checkpoint.open(path))
            self.plan = archs.plan(self.file, context=ctx)
            if ctx > self.plan.context_length:
                raise DoesNotFitError(
                    f"{path}: a context of {ctx} tokens is needed, the model was made for "
                    f"{self.plan.context_length}."
                )
            self.engine = Engine(
                self.plan, self.file.tensors, threads=threads, ctx=ctx, cache_type=cache_type
            )
            self._close = stack.pop_all()

    def __enter__(self) -> Opened:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close.close()

    @property
    def weight_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.file.tensors.values())

    @property
    def parameters(self) -> int:
        """Weights of the model, a tied head once."""
        return archs.parameter_count(self.file)

    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        from trit.runtime.tokenizer import Tokenizer

        return Tokenizer.from_gguf(self.file.metadata, name=self.file.path)

    def encoder(self) -> Callable[[str], list[int]]:
        """Text to ids, with the BOS the model wants and no EOS; control tokens are not read."""
        return encoder(self.tokenizer())

    def read(self, tokens: NDArray[np.int32], asked: range) -> NDArray[np.float32]:
        """Hidden states (len(asked), width) of the positions `asked` of a fresh sequence."""
        self.engine.remove(0, 0)
        return self.engine.hidden(Rows.of(tokens.tolist()), asked)


def encoder(tokenizer: Tokenizer) -> Callable[[str], list[int]]:
    """What `Opened.encoder` gives, of a tokenizer."""
    bos = [tokenizer.bos_id] if tokenizer.add_bos and tokenizer.bos_id is not None else []

    def encode(text: str) -> list[int]:
        return bos + tokenizer.encode(text, add_special=False, parse_special=False)

    return encode
