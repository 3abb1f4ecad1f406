"""Text that a model writes itself: what it will see when it is used, in its own words.

Drawn at temperature 1, from short openings and, where the model has a chat template, from questions
asked through it. Seeds are fixed, so a model writes the same text again on the same instruction
set. Every token reads all weights, so a model that does not fit into memory writes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from trit import engine, formats
from trit.calibrate._model import Model
from trit.calibrate._weights import is_slow, rounded
from trit.errors import TemplateError
from trit.evaluate._evaluation import Text
from trit.files._tensor import Tensor
from trit.files.checkpoint import Checkpoint
from trit.machine.memory import free_memory
from trit.machine.processors import default_threads
from trit.runtime import generate
from trit.runtime.generate import Request
from trit.runtime.model import Model as Talker
from trit.runtime.sample import SamplerSettings

SEQUENCES = 16
LENGTH = 512  # tokens of each at most, the opening included
QUESTIONS = (
    "Explain in simple words how a refrigerator works.",
    "Write a short story about a lost umbrella.",
    "Write a Python function that finds the longest word in a text, and explain it.",
    "What are the main causes of the First World War?",
    "Ein Zug fährt um 8:15 Uhr ab und braucht 2 Stunden 50 Minuten. Wann kommt er an?",
    "List ten ideas for a rainy Sunday with children.",
    "Translate into French: The shop opens at nine and closes at noon.",
    "请用三句话介绍一下长城。",
)

ROOM = 0.75  # of the free memory that the weights may take

OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Written:
    """Tokens, one text after the other; what they are; what there is to say about them."""

    tokens: list[int]
    texts: list[Text]
    notes: list[str]


def sample(
    model: Model,
    openings: list[str],
    threads: int | None = None,
    on_progress: OnProgress | None = None,
) -> Written:
    """SEQUENCES texts of at most LENGTH tokens, or none, with a note that says why."""
    needed = sum(_bytes(tensor) for tensor in model.tensors.values())
    free = free_memory()
    if free is not None and needed > ROOM * free:
        note = (
            f"the model writes no text of its own: its weights take {needed:,} bytes, and "
            f"{free:,} of memory are free. Measured on trit's passages alone"
        )
        return Written([], [], [note])
    return _write(model, openings, threads, on_progress or (lambda what, done, total: None))


def _write(model: Model, openings: list[str], threads: int | None, report: OnProgress) -> Written:
    notes: list[str] = []
    tensors = dict(_ready(model, threads or default_threads()))
    file = Checkpoint(
        Path(str(model.path)), "gguf", model.metadata, {}, tensors, close=lambda: None
    )
    length = min(LENGTH, _context(model))
    with Talker(file, length, threads, draft_max=0) as talker:
        prompts = _prompts(talker, openings, notes)
        requests = [
            Request(
                prompt,
                SamplerSettings(1.0, top_k=0, top_p=1.0, min_p=0.02, seed=number),
                length - len(prompt),
            )
            for number, prompt in enumerate(prompts)
            if len(prompt) < length
        ]
        answers: list[list[int]] = [[] for _ in requests]
        most = sum(length - len(request.prompt) for request in requests)
        for done, chunk in enumerate(
            generate.stream(talker.scheduler, talker.tokenizer, requests), 1
        ):
            answers[chunk.index] += chunk.tokens
            report("writing text to measure on", min(done, most), most)
        report("writing text to measure on", most, most)
        end = [] if talker.tokenizer.eos_id is None else [talker.tokenizer.eos_id]
    tokens = [
        token
        for request, answer in zip(requests, answers, strict=True)
        for token in (*request.prompt, *answer, *end)
    ]
    raw = b"".join(token.to_bytes(4, "little") for token in tokens)
    text = Text("text of the model's own", len(raw), hashlib.sha256(raw).hexdigest())
    return Written(tokens, [text], notes)


def _prompts(talker: Talker, openings: list[str], notes: list[str]) -> list[list[int]]:
    chats: list[list[int]] = []
    if talker.has_template:
        try:
            chats = [talker.prompt([{"role": "user", "content": each}]) for each in QUESTIONS]
        except TemplateError as error:
            notes.append(f"the model's chat template fails, no chats are measured: {error}")
    count = SEQUENCES - len(chats)
    step = max(1, len(openings) // count)
    return chats + [talker.tokenize(each) for each in openings[::step][:count]]


def _context(model: Model) -> int:
    arch = model.metadata.get("general.architecture")
    longest = model.metadata.get(f"{arch}.context_length")
    return longest if isinstance(longest, int) and longest > 0 else LENGTH


def _ready(model: Model, threads: int) -> Iterator[tuple[str, Tensor]]:
    """The tensors, those that are slow to multiply with rounded."""
    isa = engine.isa()
    for name, tensor in model.tensors.items():
        yield name, rounded(tensor, model.path, threads, isa) if is_slow(tensor) else tensor


def _bytes(tensor: Tensor) -> int:
    if not is_slow(tensor):
        return tensor.nbytes
    return tensor.rows * formats.get("q8_0").row_bytes(tensor.cols)
