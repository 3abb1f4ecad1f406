"""What a model is worth and how fast it is, measured.

    evaluate("model.gguf", text=Path("wiki.txt"), reference="f16.gguf").to_dict()

`evaluate` reads a text with a model and, side by side, with a reference: perplexity, and how far
the predictions differ (perplexity.py and divergence.py say what is computed). Hidden states go
through the head a slice of rows at a time: neither a file of logits nor a window of them is held.
`speed` measures tokens per second against the limits of the machine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from trit import zoo
from trit.errors import TritError, UsageError
from trit.evaluate._estimate import Estimate
from trit.evaluate._evaluation import Evaluation, Running, Text
from trit.evaluate._opened import Opened
from trit.evaluate._rows import Scorer
from trit.evaluate._text import read_text
from trit.evaluate.divergence import Divergence, Spread, divergence
from trit.evaluate.perplexity import Window, perplexity, windows

__all__ = ["Divergence", "Estimate", "Evaluation", "Running", "Spread", "Text", "evaluate"]

PathLike = str | os.PathLike[str]

SLICE_BYTES = 32 << 20  # logits held at once, of each model
SLICE_ROWS = (16, 64)  # but no fewer rows than the head multiplies well, nor more than help
WORST_SURPRISE = 700.0  # nats per token; e to more is no float64


def evaluate(
    model: PathLike,
    text: PathLike,
    reference: PathLike | None = None,
    ctx: int = 512,
    chunks: int | None = None,
    threads: int | None = None,
    on_progress: Callable[[Running], None] | None = None,
    cache_type: str = "f16",
) -> Evaluation:
    """Measure a model on a text, and against a reference where one is given.

    model, reference   GGUF files, Hugging Face folders, names of the zoo or hf:org/repo[:QUANT],
                       pulled when missing; of the same vocabulary
    text               a str is the text itself; a path object names a UTF-8 file
    ctx                tokens per window
    chunks             windows to read, the first ones; None: all that the text fills
    on_progress        called before the first window and after each
    cache_type         what `model` keeps keys and values in; a reference keeps them in f16

    Errors: UsageError (text too short or the name of a file, vocabularies differ), SourceError (no
    such model), DoesNotFitError (`ctx` beyond what the model was made for), InvalidFileError and
    UnsupportedError (a model trit cannot run; a text file that is not there or no UTF-8), TritError
    (logits that are not numbers).
    """
    content, about = read_text(text)
    path = zoo.resolve(os.fspath(model))
    other = None if reference is None else zoo.resolve(os.fspath(reference))
    with ExitStack() as stack:
        first = stack.enter_context(Opened(path, ctx, threads, cache_type))
        models = [first]
        if other is not None:
            models.append(stack.enter_context(Opened(other, ctx, threads)))
            _require_same_vocabulary(*models)
        tokenizer = first.tokenizer()
        tokens = np.array(tokenizer.encode(content, parse_special=False), dtype=np.int32)
        bos = tokenizer.bos_id if tokenizer.add_bos else None
        parts = windows(tokens, ctx, bos, chunks)
        scorer = stack.enter_context(Scorer(first.engine.vocab_size, first.engine.threads))
        begun = time.perf_counter()
        scores = _measure(models, parts, scorer, on_progress)
        seconds = time.perf_counter() - begun
        return Evaluation(
            model=os.fspath(path),
            reference=None if other is None else os.fspath(other),
            text=about,
            text_tokens=len(tokens),
            ctx=ctx,
            chunks=len(parts),
            tokens=len(scores),
            isa=first.engine.isa,
            threads=first.engine.threads,
            cache_type=cache_type,
            seconds=seconds,
            ppl=perplexity(scores[:, 0]),
            divergence=None if reference is None else divergence(*scores.T),
        )


def _require_same_vocabulary(model: Opened, reference: Opened) -> None:
    """UsageError unless token i means the same to both models."""
    key = "tokenizer.ggml.tokens"
    ours, theirs = model.file.metadata.get(key), reference.file.metadata.get(key)
    sizes = model.engine.vocab_size, reference.engine.vocab_size
    if sizes[0] != sizes[1]:
        problem = f"{sizes[0]} and {sizes[1]} tokens"
    elif ours != theirs:
        problem = "different tokens"
    else:
        return
    raise UsageError(
        f"{model.file.path} and {reference.file.path} have different vocabularies ({problem}); "
        "predictions can only be compared token by token. Take a reference of the same family."
    )


def _measure(
    models: Sequence[Opened],
    parts: Sequence[Window],
    scorer: Scorer,
    on_progress: Callable[[Running], None] | None,
) -> NDArray[np.float64]:
    """One row per scored token: the columns of `Scorer.compare`, or of `surprise` alone."""
    done: list[NDArray[np.float64]] = []
    begun = time.perf_counter()

    def report() -> None:
        if on_progress is not None:
            scores = np.concatenate(done) if done else None
            on_progress(_running(scores, len(done), parts, models, time.perf_counter() - begun))

    report()
    for number, window in enumerate(parts, 1):
        hidden = [model.read(window.read, window.asked) for model in models]
        rows = list(_score(models, hidden, window, scorer))
        done.append(np.concatenate(rows))
        _require_sense(done[-1], models, f"window {number} of {len(parts)}")
        report()
    return np.concatenate(done)


def _require_sense(scores: NDArray[np.float64], models: Sequence[Opened], where: str) -> None:
    for column, model in enumerate(models):
        surprise = scores[:, column]
        if not np.isfinite(surprise).all() or surprise.mean() > WORST_SURPRISE:
            raise TritError(
                f"{where}: the logits of {model.file.path} are not numbers that make sense; its "
                "weights are damaged or were badly rounded. Make the file again from its source."
            )


def _score(
    models: Sequence[Opened], hidden: Sequence[NDArray[np.float32]], window: Window, scorer: Scorer
) -> Iterator[NDArray[np.float64]]:
    """Heads and scores of a window, a slice of rows at a time."""
    fewest, most = SLICE_ROWS
    step = min(max(SLICE_BYTES // (4 * models[0].engine.vocab_size), fewest), most)
    for start in range(0, len(window.asked), step):
        part = slice(start, start + step)
        logits = [m.engine.head(h[part]) for m, h in zip(models, hidden, strict=True)]
        expected = window.expected[part]
        if len(logits) == 1:
            yield scorer.surprise(logits[0], expected)
        else:
            yield scorer.compare(logits[0], logits[1], expected)


def _running(
    scores: NDArray[np.float64] | None,
    done: int,
    parts: Sequence[Window],
    models: Sequence[Opened],
    seconds: float,
) -> Running:
    return Running(
        done=done,
        total=len(parts),
        ctx=len(parts[0].read),
        weight_bytes=sum(model.weight_bytes for model in models),
        seconds=seconds,
        ppl=None if scores is None else perplexity(scores[:, 0]),
        kld=None if scores is None or len(models) == 1 else float(scores[:, 2].mean()),
    )
