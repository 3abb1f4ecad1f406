"""The machine judge: which of two answers a reference model finds likelier.

An answer's worth is the mean ln p of its tokens, in the reference's own tokens, behind the prompt
in the reference's chat template; the token that ends an answer is not counted. A mean, for the sum
would prefer whatever is short. Two answers whose means differ by no more than `epsilon` are a tie.
What a mean of likelihoods prefers is the expected: a loop that repeats itself is very likely. It is
a measure of closeness to the reference, not of quality, and never counted among people's votes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trit.compare.figures import Pair, pairs, strengths
from trit.compare.making import describe, ids
from trit.compare.store import Store
from trit.compare.study import Ballot
from trit.evaluate import _interval
from trit.evaluate._continuations import Continuation, likelihoods
from trit.evaluate._interval import Interval
from trit.runtime.model import Model, load

EPSILON = 0.02  # nats per token
OnJudged = Callable[[int, int], None]


@dataclass(frozen=True)
class Judgement:
    """What a judge thinks of a study.

    pairs      as of people, one vote for each prompt
    strengths  Elo of each model less the heaviest's
    margins    by pair: mean ln p per token of the heavier's answers less the lighter's
    nats       mean ln p per token of each model's answers
    unjudged   prompts with an empty answer, which has no likelihood
    """

    name: str
    epsilon: float
    pairs: list[Pair]
    strengths: list[Interval] | None
    margins: list[Interval | None]
    nats: list[float]
    unjudged: int


def judge(
    store: Store,
    reference: Path,
    name: str,
    threads: int | None = None,
    on_progress: OnJudged | None = None,
) -> None:
    """Have a model read all answers it has not read yet; `on_progress` is told (done, total).

    Errors of `trit.load`, TritError for logits that are no numbers.
    """  # fmt: skip
    number = store.add_judge(describe(reference, name))
    known, prompts = store.likelihoods(number), store.prompts()
    texts = {(draw[0], p): text for (draw, p), text in store.answers().items() if not draw[1]}
    wanted = sorted(key for key in texts if key not in known and texts[key].strip())
    if not wanted:
        return
    with load(reference, store.settings.ctx, threads) as model:
        for done, (who, prompt) in enumerate(wanted):
            if on_progress is not None:
                on_progress(done, len(wanted))
            found = likelihood(model, prompts[prompt], texts[who, prompt], store.settings.system)
            store.add_likelihoods(number, [(who, prompt, *found)])


def likelihood(model: Model, prompt: str, text: str, system: str | None) -> tuple[float, int]:
    """ln p of an answer in nats, and its tokens, one or more."""
    before = list(ids(model, prompt, system))
    said = text.strip() if model.has_template else text
    answer = model.tokenizer.encode(said, add_special=False, parse_special=False)
    model.engine.remove(0, 0)
    [found] = likelihoods(model.engine, [[Continuation(before + answer, len(before))]], model.path)
    return float(found.log_p[0]), len(answer)


def judgement(
    store: Store, number: int, epsilon: float = EPSILON, asked: Collection[int] | None = None
) -> Judgement:
    """The votes that a judge's likelihoods make on the prompts `asked`; None: the study's."""
    known, models = store.likelihoods(number), range(len(store.models))
    means = {key: nats / tokens for key, (nats, tokens) in known.items()}
    asked = store.answered() if asked is None else asked
    prompts = sorted({prompt for _, prompt in means if prompt in asked})
    whole = [prompt for prompt in prompts if all((m, prompt) in means for m in models)]
    couples = [(i, j) for i in models for j in models if i < j]
    margins = {
        (i, j): np.array([means[i, prompt] - means[j, prompt] for prompt in whole])
        for i, j in couples
    }
    texts = store.answers()
    ballots = [
        Ballot(prompt, "judge", i, j, _choice(margin, epsilon, same), None, None, None)
        for i, j in couples
        for prompt, margin in zip(whole, margins[i, j], strict=True)
        for same in [texts[(i, 0), prompt].strip() == texts[(j, 0), prompt].strip()]
    ]
    names = [model.name for model in store.models]
    return Judgement(
        name=store.judges()[number],
        epsilon=epsilon,
        pairs=pairs(ballots, names, looked=False),
        strengths=strengths(ballots, len(names), store.settings.seed),
        margins=[_interval.mean(m) if len(m) else None for m in margins.values()],
        nats=[float(np.mean([means[m, p] for p in whole])) if whole else 0.0 for m in models],
        unjudged=len(asked) - len(whole),
    )


def _choice(margin: float, epsilon: float, same: bool) -> str:
    if same:
        return "same"
    if abs(margin) <= epsilon:
        return "tie"
    return "heavier" if margin > 0 else "lighter"
