"""trit's engine as a model of lm-evaluation-harness (EleutherAI), for its tasks by the hundred.

    python -m trit.evaluate.harness --model trit --model_args pretrained=model.gguf --tasks mmlu

The words behind the module are the harness's own. In Python, importing this module registers the
model "trit" there. lm_eval must be installed (`pip install lm-eval`).
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping, Sequence
from typing import Any

try:
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
    from lm_eval.utils import get_rolling_token_windows
except ImportError as error:
    from trit.errors import UnsupportedError

    raise UnsupportedError(
        f"lm-evaluation-harness cannot be imported ({error}): pip install lm-eval"
    ) from error

from trit.errors import UsageError
from trit.evaluate._continuations import Continuation, Likelihoods, likelihoods
from trit.evaluate._opened import encoder
from trit.evaluate.tasks import continuation, shortened
from trit.runtime.model import load
from trit.runtime.sample import SamplerSettings
from trit.runtime.scheduler import APART

TOKENS = 256  # of an answer, where a task names no number


@register_model("trit")
class TritLM(LM):  # type: ignore[misc, unused-ignore]
    """A model for the harness.

    pretrained    what `trit run` takes
    max_length    tokens of context; None: 4096, or the model's own if that is less
    threads       None: as many as the process may use
    batch_size, max_batch_size, device   the harness passes them; the engine decides by itself
    """

    def __init__(
        self,
        pretrained: str,
        max_length: int | str | None = None,
        threads: int | str | None = None,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
    ) -> None:
        super().__init__()
        if device not in (None, "cpu"):
            raise UsageError(f"device {device}: trit computes on the CPU.")
        self.model = load(
            pretrained,
            None if max_length is None else int(max_length),
            None if threads is None else int(threads),
        )
        self._encode = encoder(self.model.tokenizer)

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """ln p of each continuation after its context, and whether it is what greedy search
        writes. Requests of one context that follow each other share its pages."""
        texts = [(context, self._text(context, end)) for context, end in _arguments(requests)]
        groups = itertools.groupby(texts, key=lambda each: each[0])
        found = self._score([[text for _, text in group] for _, group in groups])
        answers = [
            (float(log_p), bool(greedy))
            for each in found
            for log_p, greedy in zip(each.log_p, each.greedy, strict=True)
        ]
        for request, answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial("loglikelihood", request.args, answer)
        return answers

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """ln p of whole texts, in the harness's windows."""
        items = [self._windows(text) for (text,) in _arguments(requests)]
        scores = iter(self._score([[window] for item in items for window in item]))
        answers = [sum(float(next(scores).log_p[0]) for _ in item) for item in items]
        for request, answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, answer)
        return answers

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Answers to prompts, decoded together; those of one set of settings at a time."""
        answers = []
        groups = itertools.groupby(_arguments(requests), key=lambda each: each[1])
        for wanted, group in groups:
            answers += self._generate([context for context, _ in group], wanted)
        for request, answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial("generate_until", request.args, answer)
        return answers

    @property
    def tokenizer_name(self) -> str:
        """What names the tokenizer and its template in the harness's caches."""
        return str(self.model.path)

    def chat_template(self, chat_template: bool | str = False) -> str:
        """The model's own template, the only one there is."""
        return str(self.model.metadata.get("tokenizer.chat_template", ""))

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """A conversation as text."""
        return self.model.render(chat_history, add_generation_prompt=add_generation_prompt)

    def _text(self, context: str, end: str) -> Continuation:
        if context:
            return shortened(continuation(self._encode, context, end), self.model.ctx)
        tokens = self.model.tokenizer.encode(end, add_special=False, parse_special=False)
        first = self._first_token()
        tokens = tokens if tokens[:1] == [first] and len(tokens) > 1 else [first, *tokens]
        return shortened(Continuation(tokens, 1), self.model.ctx)

    def _windows(self, text: str) -> list[Continuation]:
        tokens = self.model.tokenizer.encode(text, add_special=False, parse_special=False)
        pairs = get_rolling_token_windows(tokens, self._first_token(), self.model.ctx, 1)
        return [
            Continuation([*read, predicted[-1]], len(read) + 1 - len(predicted))
            for read, predicted in pairs
        ]

    def _first_token(self) -> int:
        """What stands before a text without context: BOS, else EOS."""
        tokenizer = self.model.tokenizer
        first = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
        if first is None:
            raise UsageError(f"{self.model.path} has neither BOS nor EOS to begin a text with.")
        return first

    def _score(self, items: Sequence[Sequence[Continuation]]) -> list[Likelihoods]:
        scheduler = self.model.scheduler
        found = scheduler.alone(
            lambda: likelihoods(self.model.engine, items, self.model.path, first=APART)
        )
        assert found is not None
        return found

    def _generate(self, prompts: list[str], wanted: Mapping[str, Any]) -> list[str]:
        until = wanted.get("until", [])
        stop = [until] if isinstance(until, str) else [each for each in until if each]
        most = int(wanted.get("max_gen_toks", TOKENS))
        room = self.model.ctx - most
        if room < 1:
            raise UsageError(f"max_gen_toks {most}: the context has {self.model.ctx} tokens.")
        ids = [self._encode(prompt)[-room:] for prompt in prompts]
        answers = self.model.generate(ids, max_tokens=most, stop=stop, sampling=_sampling(wanted))
        return [answer.text for answer in answers]


def _arguments(requests: Sequence[Any]) -> list[Any]:
    return [request.args for request in requests]


def _sampling(wanted: Mapping[str, Any]) -> SamplerSettings:
    """The likeliest token unless the task wants samples, which are of a seed then."""
    if not wanted.get("do_sample", float(wanted.get("temperature", 0.0)) > 0):
        return SamplerSettings(temperature=0.0)
    return SamplerSettings(
        temperature=float(wanted.get("temperature", 1.0)),
        top_k=int(wanted.get("top_k", 0)),
        top_p=float(wanted.get("top_p", 1.0)),
        min_p=float(wanted.get("min_p", 0.0)),
        seed=0,
    )


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    sys.exit(cli_evaluate())  # type: ignore[no-untyped-call, unused-ignore]
