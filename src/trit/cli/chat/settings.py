"""What a user asked of `run`, and the sampling settings that makes with a model's own."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trit.cli.chat.prompt import read_file
from trit.errors import UsageError
from trit.runtime.sample import SamplerSettings

THINK = ("show", "fold", "hide", "off")  # what is done with thoughts; off: there are to be none
_BIAS = re.compile(r"(\d+)([+-].+)")
# Settings people see, in the order of the chain: label -> SamplerSettings.
SHOWN = {
    "temp": "temperature",
    "top-k": "top_k",
    "top-p": "top_p",
    "min-p": "min_p",
    "repeat-penalty": "repeat_penalty",
    "presence-penalty": "presence_penalty",
    "frequency-penalty": "frequency_penalty",
    "repeat-last-n": "penalty_last_n",
}
_WHEN_OFF = {"presence-penalty", "frequency-penalty", "repeat-last-n"}  # not worth a word then


@dataclass(frozen=True)
class Asked:
    """The flags of `run` that shape an answer; None leaves a setting to the model."""

    system: str | None = None
    conversation: bool | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    penalty_last_n: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    stop: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None  # the answer is JSON of it
    think: str | None = None  # of THINK

    def check(self) -> None:
        """UsageError for settings that make no sense, before a model is loaded for them."""
        self.sampling(SamplerSettings())
        if self.system is not None and self.conversation is False:
            raise UsageError("--system needs the chat template, which --no-cnv leaves out.")
        if self.think not in (None, *THINK):
            raise UsageError(f"--think {self.think}: expected {', '.join(THINK)}.")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise UsageError(
                f"the most tokens are {self.max_tokens}; expected 1 or more, or -1 for no limit."
            )
        if not all(self.stop):
            raise UsageError("--stop: the text is empty.")

    @property
    def thinking(self) -> bool | None:
        """What a chat template is told of it; None: nothing."""
        return False if self.think == "off" else None

    def sampling(self, base: SamplerSettings) -> SamplerSettings:
        """`base`, the model's own settings, with what was asked; a seed only if it was given."""
        top_k = base.top_k if self.top_k is None else max(0, self.top_k)  # -1 is off, too
        last_n = base.penalty_last_n if self.penalty_last_n is None else self.penalty_last_n
        return replace(
            base,
            temperature=_given(self.temperature, base.temperature),
            top_k=top_k,
            top_p=_given(self.top_p, base.top_p),
            min_p=_given(self.min_p, base.min_p),
            repeat_penalty=_given(self.repeat_penalty, base.repeat_penalty),
            presence_penalty=_given(self.presence_penalty, base.presence_penalty),
            frequency_penalty=_given(self.frequency_penalty, base.frequency_penalty),
            penalty_last_n=last_n,
            logit_bias=self.logit_bias or base.logit_bias,
            seed=None if self.seed == -1 else self.seed,
        )


def form_of(form: str, schema: str | None) -> dict[str, Any] | None:
    """The JSON schema of --format and --schema, which is JSON itself or a file with it."""
    if form not in ("text", "json"):
        raise UsageError(f"--format {form}: expected text or json.")
    if schema is None:
        return {"type": "object"} if form == "json" else None
    where, text = "--schema", schema
    if not schema.lstrip().startswith("{"):
        where, text = schema, read_file(Path(schema).expanduser())
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: expected a JSON schema; {error}.") from None
    if not isinstance(found, dict):
        raise UsageError(f"{where}: expected a JSON schema, an object; got {text:.40}")
    return found


def _given(value: float | None, default: float) -> float:
    return default if value is None else value


def biases(texts: Iterable[str]) -> dict[int, float]:
    """'15043+1', '15043-inf' -> {15043: …}; UsageError for anything else."""
    found: dict[int, float] = {}
    for text in texts:
        match = _BIAS.fullmatch(text.strip())
        try:
            if match is None:
                raise ValueError
            found[int(match[1])] = float(match[2])
        except ValueError:
            raise UsageError(
                f"--logit-bias {text}: expected a token id and a signed number, such as 15043+1 "
                "or 15043-inf."
            ) from None
    return found


def described(settings: SamplerSettings) -> str:
    """'temp 0.8, top-k 40, …, seed 1': what is used, without penalties that are off."""
    off = SamplerSettings()
    penalties = settings.repeat_penalty != 1 or any(
        (settings.presence_penalty, settings.frequency_penalty)
    )
    parts = []
    for label, name in SHOWN.items():
        value = getattr(settings, name)
        needed = penalties if label == "repeat-last-n" else value != getattr(off, name)
        if label not in _WHEN_OFF or needed:
            parts.append(f"{label} {value:g}")
    parts += [f"logit-bias {token}{bias:+g}" for token, bias in settings.logit_bias.items()]
    seed = "a new seed each time" if settings.seed is None else f"seed {settings.seed}"
    return ", ".join([*parts, seed])
