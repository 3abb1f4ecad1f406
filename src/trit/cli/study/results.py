"""What a study says, for people, in 80 columns. Shares in percent, intervals of 95%."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trit.cli._terminal import counted, signed, size, table, wrapped

if TYPE_CHECKING:
    from trit.compare import Comparison
    from trit.compare.figures import Beliefs, Pair
    from trit.compare.judge import Judgement
    from trit.evaluate._interval import Interval


def as_text(found: "Comparison") -> str:
    """All of it; models are called by letters, from the heaviest on."""
    letters = {model.name: _letter(place) for place, model in enumerate(found.models)}
    undone = f", {found.undone} undone" if found.undone else ""
    parts = [
        f"{found.study}: {counted(found.prompts, 'prompt')}, "
        f"{counted(found.votes, 'vote')} of {counted(found.voters, 'voter')}{undone}; "
        f"one pass is {found.planned}",
        _models(found),
        *map(wrapped, _own(found)),
    ]
    if found.votes or any(pair.same for pair in found.pairs):
        parts.append(_pairs(found.pairs, letters))
        parts += [wrapped(_verdict(pair, letters)) for pair in found.pairs]
        parts += _remarks(found)
    parts += [_judgement(each, letters) for each in found.judgements]
    return "\n\n".join(parts)


def _models(found: "Comparison") -> str:
    rows = [["", "MODEL", "TYPE", "SIZE", "TOKENS", "ELO (95%)"]]
    for place, model in enumerate(found.models):
        elo = "" if found.strengths is None else signed(found.strengths[place], 1, 0)
        if place == 0 and elo:
            elo = "0"
        tokens = f"{found.answer_tokens[place]:.0f}"
        name = model.name if len(model.name) <= 32 else model.name[:31] + "…"
        rows.append([_letter(place), name, model.type, size(model.bytes), tokens, elo])
    return table(rows, right=frozenset({3, 4, 5}))


def _pairs(pairs: Sequence["Pair"], letters: dict[str, str]) -> str:
    head = ["", "VOTES", "WON", "LOST", "TIED", "BAD", "SAME", "SCORE, %", "OF DECIDED, %"]
    rows = [head]
    for pair in pairs:
        counts = (pair.votes, pair.wins, pair.losses, pair.ties, pair.bad, pair.same)
        rows.append(
            [_versus(pair, letters), *map(str, counts), _percent(pair.score),
             _percent(pair.decided)]
        )  # fmt: skip
    return table(rows, right=frozenset(range(1, len(head))))


def _verdict(pair: "Pair", letters: dict[str, str]) -> str:
    """In a sentence: can people tell, and what would settle it?"""
    first = f"{_versus(pair, letters)}: "
    p = f"p = {pair.p:.2g}" if pair.p >= 0.001 else "p < .001"
    if pair.told:
        better = pair.heavier if pair.wins > pair.losses else pair.lighter
        return first + f"people can tell, {letters[better]} is preferred ({p})."
    if pair.alike:
        return first + f"neither is preferred by more than 10 points ({p})."
    text = first + f"not settled ({p})."
    if pair.more_votes is not None and pair.decided is not None:
        text += (
            f" If the {100 * pair.decided.value:.0f}% of decided votes are the truth, about "
            f"{counted(pair.more_votes, 'more vote')} on new prompts would show it."
        )
    if pair.bound_votes:
        text += (
            f" {counted(pair.bound_votes, 'more vote')} would tell the score to 10 points either "
            "way."
        )
    return text


def _own(found: "Comparison") -> list[str]:
    own = found.own
    if not own.prompts:
        return []
    ruling = (
        "they are among these figures"
        if own.included
        else "they are not among these figures (--with-own)"
    )
    return [
        f"{counted(own.prompts, 'prompt')} of their own were asked by "
        f"{counted(own.voters, 'voter')}, {counted(own.votes, 'comparison')} of their answers "
        f"voted on: {ruling}."
    ]


def _remarks(found: "Comparison") -> list[str]:
    lines = []
    cast = found.votes + found.undone
    if any(look < cast for look in found.looks):
        earlier = ", ".join(str(look) for look in found.looks if look < cast)
        lines.append(
            f"Results were seen before, after {earlier} votes: p is the one that holds at any time."
        )
    if found.first_chosen is not None:
        lines.append(
            f"The answer shown first won {_percent(found.first_chosen)}% of decided votes."
        )
    catches = found.catches
    if catches.votes:
        lines.append(
            f"Of {counted(catches.votes, 'pair')} of one model, {_percent(catches.decided)}% were "
            f"decided, of the others {_percent(catches.elsewhere)}%."
        )
    lines += _beliefs(found.beliefs)
    for shift in found.shifts:
        if shift.change is not None:
            lines.append(
                f"{shift.heavier} over {shift.lighter}: score {100 * shift.blind:.0f}% blind, "
                f"{100 * shift.named:.0f}% with names; names moved it by "
                f"{signed(shift.change, 100, 0)} points, {counted(shift.votes, 'vote')}."
            )
    return ["\n".join(wrapped(line) for line in lines)] if lines else []


def _beliefs(found: "Beliefs") -> list[str]:
    if found.right is None:
        return []
    lines = [
        f"The heavier file was named {counted(found.said, 'time')}, rightly in "
        f"{_percent(found.right)}%."
    ]
    if found.gap is not None:
        lines.append(
            f"The preferred answer was believed to be the heavier's in {_percent(found.liked)}%, "
            f"and was in {_percent(found.heavier)}%: a confidence gap of "
            f"{signed(found.gap, 100, 0)} points."
        )
    return lines


def _judgement(found: "Judgement", letters: dict[str, str]) -> str:
    head = ["", "N", "WON", "LOST", "TIED", "SAME", "SCORE, %", "P", "MARGIN, nats"]
    rows = [head]
    for pair, margin in zip(found.pairs, found.margins, strict=True):
        counts = (pair.votes, pair.wins, pair.losses, pair.ties, pair.same)
        rows.append(
            [_versus(pair, letters), *map(str, counts), _percent(pair.score), f"{pair.p:.2g}",
             "" if margin is None else signed(margin, 1, 3)]
        )  # fmt: skip
    means = ", ".join(
        f"{letter} {nats:.3f}" for letter, nats in zip(letters.values(), found.nats, strict=True)
    )
    title = (
        f"Judge {found.name}, a machine, not among the votes: mean ln p per token, ties within "
        f"{found.epsilon:g} nats; {means}."
    )
    if found.unjudged:
        title += f" {counted(found.unjudged, 'prompt')} with an empty answer left out."
    return f"{wrapped(title)}\n{table(rows, right=frozenset(range(1, len(head))))}"


def _letter(place: int) -> str:
    return chr(ord("A") + place) if place < 26 else f"M{place}"


def _versus(pair: "Pair", letters: dict[str, str]) -> str:
    return f"{letters[pair.heavier]}–{letters[pair.lighter]}"


def _percent(value: "Interval | None") -> str:
    if value is None:
        return "–"
    return f"{100 * value.value:.0f} ({100 * value.low:.0f}–{100 * value.high:.0f})"
