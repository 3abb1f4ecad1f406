"""What a study is: models, prompts, settings, answers, votes. Plain rows; store.py keeps them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from trit.errors import InvalidFileError, UsageError
from trit.runtime.sample import SamplerSettings

Choice = Literal["1", "2", "tie", "bad"]
CHOICES: tuple[Choice, ...] = ("1", "2", "tie", "bad")
Belief = Literal["1", "2", "unsure"]
BELIEFS: tuple[Belief, ...] = ("1", "2", "unsure")
Arm = Literal["blind", "named"]
ARMS: tuple[Arm, ...] = ("blind", "named")
Draw = tuple[int, int]  # a model by its number, and which of its answers
MOST_PROMPT_BYTES = 1 << 20
CATCH_EVERY = 10


@dataclass(frozen=True)
class Settings:
    """How answers are made and asked about; alike for all models.

    seed         of answers, orders and sides
    max_tokens   of an answer, at most
    system       message before each prompt; None: none
    ctx          tokens of prompt and answer together; None: as for `trit.load`
    catch_every  on every so manieth prompt two answers of the heaviest model are compared as well:
                 what voters see between those is chance. 0: never
    ask_belief   whether voters are asked which file they believe to be the heavier one
    sampling     without a seed: each prompt has its own, the same for every model
    """

    seed: int = 0
    max_tokens: int = 200
    system: str | None = None
    ctx: int | None = None
    catch_every: int = CATCH_EVERY
    ask_belief: bool = True
    sampling: SamplerSettings = field(default_factory=SamplerSettings)

    def __post_init__(self) -> None:
        checks = (
            ("seed", 0 <= self.seed < 1 << 32, "from 0 to 2^32 - 1"),
            ("max_tokens", self.max_tokens >= 1, "1 or more"),
            ("ctx", self.ctx is None or self.ctx >= 1, "1 or more"),
            ("catch_every", self.catch_every >= 0, "0 (never) or more"),
        )
        for name, ok, expected in checks:
            if not ok:
                raise UsageError(f"{name} is {getattr(self, name)}; expected {expected}.")

    def catches(self, prompt: int) -> bool:
        """Whether the heaviest model answers prompt number 1, 2 … twice. Without chance in the
        answers both would be the same."""
        often = self.catch_every if self.sampling.temperature > 0 else 0
        return often > 0 and prompt % often == 0

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Settings:
        given: dict[str, Any] = json.loads(text)
        sampling = given.pop("sampling")
        sampling["logit_bias"] = {int(key): bias for key, bias in sampling["logit_bias"].items()}
        return cls(**given, sampling=SamplerSettings(**sampling))


@dataclass(frozen=True)
class ModelRow:
    """A model of a study. Numbers go from the heaviest file to the lightest.

    type    of the tensors that take the most bytes
    recipe  what the file says of how it was made, as JSON; None where it says nothing
    """

    id: int
    name: str
    path: str
    bytes: int
    sha256: str
    type: str
    recipe: str | None


@dataclass(frozen=True)
class Answer:
    """What `draw` of a model wrote to a prompt, and what it took; seconds are of the clock and
    shared with the other answers that were made together."""

    draw: Draw
    prompt: int
    text: str
    tokens: int
    finish_reason: str
    seed: int
    prompt_tokens: int
    prompt_seconds: float
    generation_seconds: float
    isa: str
    threads: int


@dataclass(frozen=True)
class Item:
    """Two answers to a prompt, in the order they are shown."""

    prompt: int
    first: Draw
    second: Draw

    @property
    def key(self) -> tuple[int, frozenset[Draw]]:
        """The same whichever stands first."""
        return self.prompt, frozenset((self.first, self.second))


@dataclass(frozen=True)
class Ballot:
    """A vote that stands, about the models `heavier` < `lighter` by number (equal: a catch).

    choice   'heavier', 'lighter', 'tie', 'bad' (both), or 'same': the texts were, nobody was asked
    first    whether the answer shown first was chosen; None where none was
    believed which the voter took for the heavier file: 'heavier', 'lighter', 'unsure', None: not
             said
    """

    prompt: int
    voter: str
    heavier: int
    lighter: int
    choice: str
    first: bool | None
    believed: str | None
    seconds: float | None


def read_prompts(path: Path) -> list[str]:
    """The prompts of a file: one a line, or with the suffix .jsonl {"prompt": …} a line.

    Empty lines are none. InvalidFileError for a file that is not there, no UTF-8, or has none.
    """
    try:
        raw = path.read_bytes()
        lines = raw.decode("utf-8-sig").split("\n")  # not at U+2028, which JSON may hold
    except OSError as error:
        problem = f"expected a file with prompts, got: {error.strerror}. Check --prompts."
        raise InvalidFileError(path, "", problem) from None
    except UnicodeDecodeError as error:
        problem = "expected UTF-8 text; convert it first."
        raise InvalidFileError(path, f"byte {error.start}", problem) from None
    json_lines = path.suffix == ".jsonl"
    found = [
        _from_json(path, number, line) if json_lines else line.strip()
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not found:
        raise InvalidFileError(path, "", "it has no prompt; write one a line.")
    return found


def _from_json(path: Path, number: int, line: str) -> str:
    try:
        given = json.loads(line)
    except (ValueError, RecursionError):
        given = None
    prompt = given.get("prompt") if isinstance(given, dict) else None
    if not isinstance(prompt, str) or not prompt.strip():
        problem = 'expected {"prompt": "a text"}; other keys are ignored.'
        raise InvalidFileError(path, f"line {number}", problem)
    return prompt


def checked_prompts(prompts: Sequence[str]) -> list[str]:
    """UsageError for an empty prompt, a huge one, or two that are the same: figures take prompts
    for drawn one by one."""
    seen: dict[str, int] = {}
    for number, prompt in enumerate(prompts, 1):
        if not prompt.strip() or len(prompt.encode()) > MOST_PROMPT_BYTES:
            raise UsageError(f"prompt {number} is empty or larger than {MOST_PROMPT_BYTES} bytes.")
        if prompt in seen:
            raise UsageError(
                f"prompts {seen[prompt]} and {number} are the same; each may be there once, for "
                "intervals take prompts for independent. Leave one out."
            )
        seen[prompt] = number
    return list(prompts)
