"""Voters with a known preference are recovered with the confidence that is stated."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from compare import voters
from trit.compare import _shares, _signs, _strengths, figures
from trit.evaluate._interval import Interval

SEEDS = 400
# What 400 seeds show of a true .95: less than this comes by chance once in a thousand.
LEAST = 0.95 - 3.1 * math.sqrt(0.95 * 0.05 / SEEDS)


def covers(interval: Interval | None, truth: float) -> bool:
    return interval is not None and interval.low <= truth <= interval.high


@pytest.mark.parametrize(
    ("prompts", "people", "logit", "tie", "spread"),
    [(20, 1, 0.0, 0.3, 0.0), (30, 1, 0.5, 0.0, 0.0), (40, 1, 1.0, 0.4, 1.0), (40, 1, 2.5, 0.2, 0.0),
     (10, 4, 0.5, 0.3, 1.0), (20, 5, 0.0, 0.2, 2.0), (30, 3, 1.5, 0.5, 0.5)],
)  # fmt: skip
def test_shares_cover_the_truth(
    prompts: int, people: int, logit: float, tie: float, spread: float
) -> None:
    """Also with several voters on a prompt, who then agree more than by chance."""
    random = np.random.default_rng(11)
    decided = voters.expected(logit, spread)
    score = tie / 2 + (1 - tie) * decided
    which = np.repeat(np.arange(prompts), people)
    hits = np.zeros(2)
    for _ in range(SEEDS):
        chance = 1 / (1 + np.exp(-(logit + spread * random.standard_normal(prompts))))
        values = (random.random(len(which)) < chance[which]).astype(float)
        values[random.random(len(which)) < tie] = 0.5
        wins = values[values != 0.5] == 1.0
        hits += (
            covers(_shares.score(values, which), score),
            covers(_shares.share(wins, which[values != 0.5]), decided),
        )
    assert (hits / SEEDS >= LEAST).all() and (hits / SEEDS <= 0.995).all()


def test_votes_on_one_prompt_say_less_than_on_many() -> None:
    same = np.repeat([1.0, 0.0], 20)  # one prompt all for the one, one for the other
    apart = _shares.score(same, np.arange(40))
    together = _shares.score(same, np.repeat([0, 1], 20))
    assert apart is not None and together is not None
    assert together.high - together.low > 0.9 > 0.4 > apart.high - apart.low
    assert _shares.score(np.zeros(0), np.zeros(0, dtype=np.int64)) is None


def test_quantiles_of_student() -> None:
    table = {1: 12.7062, 2: 4.3027, 3: 3.1824, 5: 2.5706, 10: 2.2281, 30: 2.0423, 1000: 1.9623}
    assert all(_shares.student(n) == pytest.approx(t, rel=0.01) for n, t in table.items())


def test_strengths_of_three_are_recovered() -> None:
    """Each of the two differences from the heaviest, in 100 studies; and on average."""
    random = np.random.default_rng(3)
    logits, tie = (0.6, 0.3, -0.5), 0.25
    # Ties are half a win: what is estimated are the strengths that explain the expected scores.
    shares = np.zeros((1, 3, 3))
    for i, j in itertools.permutations(range(3), 2):
        shares[0, i, j] = tie / 2 + (1 - tie) * voters.expected(logits[i] - logits[j])
    truth = _strengths.fit(shares * 1e6)[0]
    wanted = (truth - truth[0]) * _strengths.ELO
    found = []
    for seed in range(100):
        own = figures.strengths(voters.ballots(random, logits, 30, tie=tie), 3, seed)
        assert own is not None and own[0] == Interval(0.0, 0.0, 0.0)
        found.append(own[1:])
    hits = np.mean([[covers(x, t) for x, t in zip(o, wanted[1:], strict=True)] for o in found])
    means = np.mean([[each.value for each in own] for own in found], axis=0)
    assert 0.9 < hits < 0.99  # 200 intervals, of which two go together
    assert means == pytest.approx(wanted[1:], abs=15)


def test_two_models_have_the_strength_of_their_score() -> None:
    random = np.random.default_rng(1)
    cast = voters.ballots(random, (0.8, 0.0), 200, tie=0.2)
    pair, elo = figures.pairs(cast, ["a", "b"], looked=False)[0], figures.strengths(cast, 2, 0)
    assert pair.score is not None and elo is not None
    assert elo[1].value == pytest.approx(-400 * math.log10(1 / (1 / pair.score.value - 1)), abs=2)
    assert elo[1].high < 0 < pair.score.low - 0.5


def test_a_model_that_wins_everything_has_a_finite_strength() -> None:
    cast = voters.ballots(np.random.default_rng(0), (50.0, 0.0), 10)
    elo = figures.strengths(cast, 2, 0)
    assert elo is not None and -700 < elo[1].low <= elo[1].value < -400


def test_the_sign_test_by_hand() -> None:
    assert _signs.sign_flip([1] * 9 + [-1]) == pytest.approx(22 / 1024)
    assert _signs.sign_flip([1, -1]) == _signs.sign_flip([]) == 1.0
    # 3 and 1 either way: ±4 is two of four ways
    assert _signs.sign_flip([3, 1]) == 0.5
    # Ten voters who agree on one prompt are no ten votes.
    assert _signs.sign_flip([10]) == 1.0


@pytest.mark.parametrize(("people", "spread"), [(1, 0.0), (4, 2.0)])
def test_who_cannot_tell_is_rarely_said_to(people: int, spread: float) -> None:
    """At most 5% of studies, also where voters agree with each other on every prompt."""
    random = np.random.default_rng(5)
    found = 0
    for _ in range(SEEDS):
        chance = 1 / (1 + np.exp(-spread * random.standard_normal(24)))
        wins = random.binomial(people, chance)
        found += _signs.sign_flip((2 * wins - people).tolist()) < 0.05
    assert found / SEEDS <= 0.05 + 2.4 * math.sqrt(0.05 * 0.95 / SEEDS)


def test_looking_after_every_vote_deceives_nobody() -> None:
    """The fixed test, looked at each time, would deceive in three of ten studies."""
    random = np.random.default_rng(6)
    always = fixed = 0
    for _ in range(SEEDS):
        votes = random.random(120) < 0.5
        always += _signs.always(votes.tolist()) < 0.05  # it is the least that it ever was
        sums = np.cumsum(2 * votes - 1)
        fixed += bool((np.abs(sums) > 1.96 * np.sqrt(np.arange(1, 121)))[9:].any())
    assert always / SEEDS <= 0.05 < 0.2 < fixed / SEEDS


@pytest.mark.parametrize("share", [0.6, 0.75, 0.9])
def test_votes_still_needed_are_right(share: float) -> None:
    """With so many more votes at that share, four of five studies are settled; with half as many
    they are not. What many studies of 100 votes foretell is in the middle what is true (studies
    of 20 foretell too little: those that see nothing foretell no number, the others too much)."""
    random = np.random.default_rng(7)
    for wins, losses in ((0, 0), (12, 8)):
        more = _signs.more_votes(wins, losses, share)
        assert more is not None

        def settled(count: int, wins: int = wins, losses: int = losses) -> float:
            won = random.binomial(count, share, size=4000) + wins
            ends = _signs._evidence(won, np.full(4000, wins + losses + count))
            return float(np.mean((ends >= math.log(20)) & (2 * won > wins + losses + count)))

        assert 0.77 < settled(more) < 0.9  # few votes make large steps
        assert settled(more // 2) < 0.7
    true = _signs.more_votes(0, 0, share)
    guesses = [
        _signs.more_votes(0, 0, wins / 100) or 10**6
        for wins in random.binomial(100, share, size=60).tolist()
    ]
    assert true is not None and float(np.median(guesses)) == pytest.approx(true, rel=0.25)


def test_votes_needed_at_the_ends() -> None:
    assert _signs.more_votes(0, 0, 1.0) == _signs.more_votes(0, 0, 0.0) == 8  # 2^8 / 9 > 20
    assert _signs.more_votes(5, 5, 0.5) is None and _signs.more_votes(0, 0, 0.5001) is None


def test_the_figures_of_a_study() -> None:
    random = np.random.default_rng(8)
    cast = voters.ballots(random, (1.5, 0.0), 60, tie=0.3, belief=0.9)
    pair = figures.pairs(cast, ["heavy", "light"], looked=False)[0]
    assert pair.votes == 60 == pair.wins + pair.losses + pair.ties
    assert pair.told and not pair.alike and pair.p == pair.p_fixed < pair.p_always
    assert figures.pairs(cast, ["heavy", "light"], looked=True)[0].p == pair.p_always
    told = figures.beliefs(cast)
    assert told.right is not None and told.liked is not None and told.heavier is not None
    assert told.said == 60 and told.liked.low > 0.75
    place = figures.first_chosen(cast)
    assert place is not None and place.low < 0.5 < place.high


def test_models_that_are_alike_are_shown_to_be() -> None:
    cast = voters.ballots(np.random.default_rng(9), (0.0, 0.0), 400, tie=0.6)
    pair = figures.pairs(cast, ["a", "b"], looked=False)[0]
    assert pair.alike and not pair.told and pair.bound_votes == 0
    few = figures.pairs(cast[:30], ["a", "b"], looked=False)[0]
    assert not few.alike and few.bound_votes is not None
    enough = figures.pairs(cast[: 30 + few.bound_votes], ["a", "b"], looked=False)[0].score
    assert enough is not None and enough.high - enough.low == pytest.approx(0.2, abs=0.03)


def test_several_pairs_are_several_chances() -> None:
    random = np.random.default_rng(10)
    deceived = 0
    for _ in range(100):
        found = figures.pairs(voters.ballots(random, (0, 0, 0), 20), ["a", "b", "c"], looked=False)
        deceived += any(pair.told for pair in found)
        assert all(pair.p >= pair.p_fixed for pair in found)
    assert deceived <= 12  # of 100; 5 expected at most


def test_what_names_do() -> None:
    """Voters who cannot tell, and who go by the names once they see them."""
    random = np.random.default_rng(12)
    blind = voters.ballots(random, (0.0, 0.0), 50, tie=0.2)
    named = voters.ballots(random, (1.5, 0.0), 50, tie=0.2)
    (shift,) = figures.shifts(blind, named, ["heavy", "light"])
    assert shift.votes == 50 and shift.change is not None and shift.change.low > 0
    assert shift.named - shift.blind == pytest.approx(shift.change.value)
    assert figures.shifts(blind, [], ["heavy", "light"]) == []
