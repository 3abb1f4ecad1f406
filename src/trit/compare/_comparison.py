"""`compare`, and all that is known of a study."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from trit import zoo
from trit.compare import figures
from trit.compare.figures import Beliefs, Catches, Pair, Shift
from trit.compare.judge import EPSILON, Judgement, judgement
from trit.compare.judge import judge as have_judged
from trit.compare.making import OnProgress, describe, make
from trit.compare.store import Store
from trit.compare.study import ARMS, Ballot, ModelRow, Settings, checked_prompts, read_prompts
from trit.compare.voting import Voting
from trit.errors import UsageError
from trit.evaluate._interval import Interval
from trit.files import checkpoint
from trit.runtime.own_sampling import own_sampling

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Own:
    """Prompts of voters' own: how many, of how many voters, and the votes on them.

    included  whether these are among the figures of the study
    """

    prompts: int
    voters: int
    votes: int
    included: bool


@dataclass(frozen=True)
class Comparison:
    """A study: what was compared, and what the votes say (figures.py has the words).

    own            what voters asked themselves; where it is not included, all else leaves it out
    answer_tokens  mean of each model
    planned        comparisons of one pass over the study
    undone         votes that were taken back, which count for nothing
    looks          votes cast, undone ones too, when results were seen before; if more came since,
                   only p_always holds
    strengths      Elo of each model less the heaviest's; None below two prompts
    named          votes cast with names shown
    judgements     of machines, never mixed with votes
    """

    study: str
    settings: Settings
    models: list[ModelRow]
    own: Own
    answer_tokens: list[float]
    prompts: int
    planned: int
    voters: int
    votes: int
    undone: int
    looks: list[int]
    pairs: list[Pair]
    strengths: list[Interval] | None
    first_chosen: Interval | None
    catches: Catches
    beliefs: Beliefs
    named: int
    shifts: list[Shift]
    judgements: list[Judgement]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it: shares are fractions, intervals {"value", "low", "high"} of 95%."""
        answer: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(self)}
        for name, value in answer.items():
            answer[name] = _plain(value)
        told = [self.pairs, *(each.pairs for each in self.judgements)]
        plain = [answer["pairs"], *(each["pairs"] for each in answer["judgements"])]
        for pairs, dicts in zip(told, plain, strict=True):
            for pair, own in zip(pairs, dicts, strict=True):
                own |= {"told": pair.told, "alike": pair.alike}
        return answer


def compare(
    models: Sequence[PathLike],
    prompts: Sequence[str] | Path,
    study: PathLike,
    settings: Settings | None = None,
    *,
    judge: PathLike | None = None,
    epsilon: float = EPSILON,
    threads: int | None = None,
    on_progress: OnProgress | None = None,
    on_judged: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Have models answer prompts, for people to vote on, and say what is known by now.

    models     two or more, as for `trit.load`; none: those of a study that is there
    prompts    texts, or a file of them (`read_prompts`); new ones are added to a study
    study      its SQLite file; one that is there is gone on with, answers are made once
    settings   None: the defaults with the first model's own sampling; of a study that is there:
               its own, and others are refused
    judge      a reference that says which answers it finds likelier; None: nobody new
    epsilon    nats per token of a judge's ties

    Errors: UsageError, InvalidFileError, SourceError, DoesNotFitError, and those of `trit.load`.
    """
    texts = read_prompts(prompts) if isinstance(prompts, Path) else list(prompts)
    with begin(models, texts, Path(study), settings) as store:
        make(store, threads, on_progress)
        if judge is not None:
            path = zoo.resolve(os.fspath(judge))
            have_judged(store, path, _names([path], [judge])[0], threads, on_judged)
        return results(store, epsilon)


def begin(
    models: Sequence[PathLike], prompts: Sequence[str], study: Path, settings: Settings | None
) -> Store:
    """The study of a file, or a new one; with these prompts. Errors as for `compare`."""
    checked = checked_prompts(prompts)
    if study.exists():
        store = Store.open(study)
        try:
            _require_same(store, models, settings)
        except BaseException:
            store.close()
            raise
    else:
        store = _create(models, checked, study, settings)
    store.add_prompts(checked)
    return store


def _create(
    models: Sequence[PathLike], prompts: Sequence[str], study: Path, settings: Settings | None
) -> Store:
    if len(models) < 2:
        raise UsageError(f"{len(models)} models: a comparison needs two or more.")
    if not prompts:
        raise UsageError("no prompts: a comparison needs one or more (--prompts FILE).")
    if not study.absolute().parent.is_dir():
        raise UsageError(f"{study}: there is no folder {study.absolute().parent}.")
    paths = [zoo.resolve(os.fspath(model)) for model in models]
    names = _names(paths, models)
    rows = [describe(path, name) for path, name in zip(paths, names, strict=True)]
    if len({row.sha256 for row in rows}) < len(rows):
        raise UsageError("two of the models are the same file; leave one out.")
    rows.sort(key=lambda row: -row.bytes)
    settings = settings or own_settings(paths[0])
    numbered = [replace(row, id=number) for number, row in enumerate(rows)]
    return Store.create(study, settings, numbered)


def own_settings(model: Path) -> Settings:
    """The defaults, with the model's own sampling: what a study begins with whose first it is."""
    with checkpoint.open(model) as file:
        return Settings(sampling=own_sampling(file))


def _require_same(store: Store, models: Sequence[PathLike], settings: Settings | None) -> None:
    """UsageError for models or settings that are not those of the study."""
    given = [os.fspath(zoo.resolve(os.fspath(model)).resolve()) for model in models]
    known = [model.path for model in store.models]
    if given and sorted(given) != sorted(known):
        raise UsageError(
            f"{store.path} compares {', '.join(m.name for m in store.models)}; name these or none, "
            "or begin another study (-o)."
        )
    if settings is None or settings == store.settings:
        return
    ours, theirs = asdict(store.settings), asdict(settings)
    name = next(key for key in ours if ours[key] != theirs[key])
    raise UsageError(
        f"{store.path} was begun with {name} {ours[name]}, now it is {theirs[name]}; answers of "
        "both kinds cannot be compared. Leave it out, or begin another study (-o)."
    )


def _names(paths: Sequence[Path], references: Sequence[PathLike]) -> list[str]:
    """What models are called: their file, and where two have one name, their folder's with it."""
    stems = [path.resolve().name if path.is_dir() else path.stem for path in paths]
    named = [
        stem if stems.count(stem) == 1 else f"{path.resolve().parent.name}/{stem}"
        for stem, path in zip(stems, paths, strict=True)
    ]
    return [
        name if named.count(name) == 1 else os.fspath(given)
        for name, given in zip(named, references, strict=True)
    ]


def results(store: Store, epsilon: float = EPSILON, own: bool = False) -> Comparison:
    """What the votes say by now; it is noted that somebody looked.

    epsilon  as for `compare`
    own      with the votes on prompts of voters' own. Without them the prompts are those that were
             chosen before
    """
    theirs = store.own_prompts()
    out = set() if own else set(theirs)
    blind, named = ([b for b in store.ballots(arm) if b.prompt not in out] for arm in ARMS)
    asked = [ballot for ballot in blind if ballot.choice != "same"]
    undone = sum(prompt not in out for prompt in store.undone())
    cast = len(asked) + undone
    looks = _looks(store, own)
    names = [model.name for model in store.models]
    tokens = store.answer_tokens(own)
    prompts = [*store.answered(), *(theirs if own else ())]
    return Comparison(
        study=os.fspath(store.path),
        settings=store.settings,
        models=store.models,
        own=_own(store, own),
        answer_tokens=[tokens.get(model.id, 0.0) for model in store.models],
        prompts=len(store.prompts()) - len(out),
        planned=Voting(store).planned(),
        voters=len({ballot.voter for ballot in asked}),
        votes=len(asked),
        undone=undone,
        looks=looks,
        pairs=figures.pairs(blind, names, looked=any(look < cast for look in looks)),
        strengths=figures.strengths(blind, len(names), store.settings.seed),
        first_chosen=figures.first_chosen(blind),
        catches=figures.catches(blind),
        beliefs=figures.beliefs([b for b in blind if _weighs_more(store.models, b)]),
        named=sum(ballot.choice != "same" for ballot in named),
        shifts=figures.shifts(blind, named, names),
        judgements=[judgement(store, number, epsilon, prompts) for number in store.judges()],
    )


def _own(store: Store, included: bool) -> Own:
    theirs = store.own_prompts()
    votes = sum(b.prompt in theirs and b.choice != "same" for b in store.ballots("blind"))
    voters = {voter for owners in theirs.values() for voter in owners}
    return Own(len(theirs), len(voters), votes, included)


def _looks(store: Store, own: bool) -> list[int]:
    """Votes cast at earlier looks, of those that count; this look is noted."""
    theirs = store.own_prompts()
    cast = [b.prompt in theirs for b in store.ballots("blind") if b.choice != "same"]
    cast += [prompt in theirs for prompt in store.undone()]
    before = store.add_look(len(cast) - sum(cast), sum(cast)) if cast else []
    counted = (votes + asked * own for votes, asked in before)
    return [count for count in dict.fromkeys(counted) if count]


def _weighs_more(models: Sequence[ModelRow], ballot: Ballot) -> bool:
    """Whether the files of a vote differ in weight."""
    return models[ballot.heavier].bytes > models[ballot.lighter].bytes


def _plain(value: Any) -> Any:
    """Dataclasses as dicts, at any depth."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value
