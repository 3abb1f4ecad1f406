"""Prompts of a voter's own: who sees them, what is kept, what their time tells, what they count."""

from __future__ import annotations

import itertools
import sqlite3
import threading
from dataclasses import replace
from pathlib import Path

import pytest

import talking_model
import trit
from compare import studies
from trit.compare import Asking, Settings, Store, Voting, asking, judge, results
from trit.compare.asking import SLACK, hold
from trit.compare.making import seed
from trit.compare.plan import own
from trit.compare.study import Answer
from trit.errors import TritError, UsageError

SETTINGS = Settings(max_tokens=6, ctx=200, seed=2)
PROMPTS = [f"Tell me about {i}." for i in range(1, 11)]
OWN = "Go on."
GO = threading.Event()  # never set: nobody cancels


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    whole = talking_model.write(folder / "f16.gguf")
    trit.quantize(whole, folder / "q2.gguf", "Q2_K", threads=1)
    return [whole, folder / "q2.gguf"]


@pytest.fixture
def study(models: list[Path], tmp_path: Path) -> Path:
    path = tmp_path / "study.sqlite"
    trit.compare(models, PROMPTS[:2], path, SETTINGS, threads=1)
    return path


def add(store: Store, voter: str, text: str) -> int:
    number = max(store.prompts()) + 1
    assert store.add_own_prompt(voter, number, text, 1e9, studies.answers(store, number))
    return number


def test_the_answers_are_those_the_study_would_have(study: Path, models: list[Path]) -> None:
    """The same prompt in the study's file, at the same place, is answered the same."""
    with Store.open(study) as store:
        assert Asking(store, threads=1).ask("ann", f" {PROMPTS[2]}\n", GO) is not None
        found = store.answers()
        rows = store._rows("SELECT * FROM answer WHERE prompt = 3")
        assert {row["seed"] for row in rows} == {seed(SETTINGS, (0, 0), 3)}
        (row,) = store._rows("SELECT * FROM own_prompt")
        assert (row["prompt"], row["voter"]) == (3, "ann") and row["asked_at"] > 1.7e9
    other = study.with_name("other.sqlite")
    trit.compare(models, PROMPTS[:3], other, SETTINGS, threads=1)
    with Store.open(other) as store:
        assert store.answers() == found


def test_nobody_else_sees_them_and_they_come_next(study: Path) -> None:
    with Store.open(study) as store:
        voting = Voting(store)
        before = voting.next("ann")
        assert before is not None and voting.planned() == 2
        Asking(store, threads=1).ask("ann", OWN, GO)
        shown = voting.next("ann")
        assert shown is not None and shown.prompt == OWN and shown.names is None
        assert voting.next("ann") == shown
        assert voting.progress("ann").planned == 3 and voting.planned() == 2
        voting.vote(shown.token, "1")
        assert voting.next("ann") == before, "what was open is open again, as it stood"
        again = voting.undo("ann")
        assert again is not None and again.texts == shown.texts
        seen = set()
        while (turn := voting.next("bob")) is not None:
            seen.add(turn.prompt)
            voting.vote(turn.token, "tie")
        assert seen == set(PROMPTS[:2]) and voting.progress("bob").planned == 2


def test_a_prompt_of_two_voters_has_one_pair_of_answers(study: Path) -> None:
    with Store.open(study) as store:
        asker = Asking(store, threads=1)
        asker.ask("ann", OWN, GO)
        answers = store.answers()
        asker.ask("bob", OWN, GO)
        assert store.answers() == answers and store.own_prompts() == {3: {"ann", "bob"}}
        for voter in ("ann", "bob"):
            shown = Voting(store).next(voter)
            assert shown is not None and shown.prompt == OWN


def test_what_is_refused(study: Path) -> None:
    with Store.open(study) as store:
        asker = Asking(store, most=2, threads=1)
        for prompt, message in (
            (" \n", "empty"), ("x" * 2001, "2,001 characters"), (PROMPTS[0], "in its turn"),
            ("y" * 300, "tokens; the study has room for 200"),
        ):  # fmt: skip
            with pytest.raises(UsageError, match=message):
                asker.ask("ann", prompt, GO)
        assert len(store.prompts()) == 2, "what is refused is not kept"
        assert asker.left("ann") == 2
        asker.ask("ann", "One.", GO)
        with pytest.raises(UsageError, match="already"):
            asker.ask("ann", "One.", GO)
        found = asker.ask("ann", "Two.", GO)
        assert found is not None and found.left == 0
        with pytest.raises(UsageError, match="all 2 prompts"):
            asker.ask("ann", "Three.", GO)
        assert asker.left("bob") == 2
        with pytest.raises(UsageError, match="their own"):
            store.add_prompts(["New.", "One."])
        assert "New." not in store.prompts().values()
    with pytest.raises(UsageError, match="most is 0"):
        Asking(store, most=0)


@pytest.mark.parametrize("tokens", [0, 1, 4, 11])
def test_what_is_cancelled_leaves_nothing(
    study: Path, monkeypatch: pytest.MonkeyPatch, tokens: int
) -> None:
    """At any moment: before the first model, within the first, within the second."""
    counted = itertools.count()
    monkeypatch.setattr(asking, "require_same", lambda row, watch: None)

    class Late(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            return next(counted) >= tokens

    with Store.open(study) as store:
        before = store.answers()
        assert Asking(store, threads=1).ask("ann", OWN, Late()) is None
        assert store.answers() == before and store.asked("ann") == []
        assert next(counted) > tokens
        assert Asking(store, threads=1).ask("ann", OWN, GO) is not None


def test_a_file_that_changed_answers_nothing(models: list[Path], tmp_path: Path) -> None:
    copies = [tmp_path / path.name for path in models]
    for path, copy in zip(models, copies, strict=True):
        copy.write_bytes(path.read_bytes())
    trit.compare(copies, PROMPTS[:1], tmp_path / "s.sqlite", SETTINGS, threads=1)
    copies[1].write_bytes(models[0].read_bytes())
    with Store.open(tmp_path / "s.sqlite") as store:
        with pytest.raises(TritError, match="another file"):
            Asking(store, threads=1).ask("ann", OWN, GO)
        assert len(store.prompts()) == 1


def test_the_wait_does_not_tell_whose_the_long_answer_is() -> None:
    """Two models, one three times slower. Whoever wrote the long one: the same seconds in all."""
    paces = (0.3, 0.1)
    for lengths in ((200, 5), (40, 41), (1, 8), (0, 0)):
        waits = []
        for tokens in (lengths, lengths[::-1]):
            spent = sum(pace * count for pace, count in zip(paces, tokens, strict=True))
            waits.append(spent + hold(tokens, spent, max(paces)))
        assert waits[0] == pytest.approx(waits[1]) == SLACK * 0.3 * sum(lengths)
    assert hold((9, 9), 100.0, 0.3) == 0, "a machine that stood still is not waited for"


def test_answers_are_held_back(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as `hold` says, by each model's best pace; a few tokens say nothing of it."""
    waits: list[float] = []
    monkeypatch.setattr(asking, "_wait", lambda seconds, cancelled: waits.append(seconds))
    speeds = {0: (20, 4.0), 1: (10, 1.0)}

    def answer(model: object, wanted: object, prompts: dict[int, str], *_: object) -> list[Answer]:
        [((who, _), number)] = wanted  # type: ignore[misc]
        tokens, seconds = speeds[who]
        return [
            replace(studies.answers(store, number)[who], tokens=tokens, generation_seconds=seconds)
        ]

    monkeypatch.setattr(asking, "answer", answer)
    with Store.open(study) as store:
        asker = Asking(store, threads=1)
        asker.ask("ann", "One.", GO)
        assert waits[-1] == pytest.approx(SLACK * 0.2 * 30 - 5.0)
        speeds |= {0: (10, 90.0), 1: (20, 2.0)}  # the machine was busy with something else
        asker.ask("ann", "Two.", GO)
        assert waits[-1] == 0
        speeds |= {0: (100, 30.0), 1: (10, 1.5)}  # half as fast to both
        asker.ask("ann", "Slower.", GO)
        assert waits[-1] == pytest.approx(SLACK * 1.5 * 0.2 * 110 - 31.5)
        speeds |= {0: (1, 0.0), 1: (30, 3.0)}
        asker.ask("ann", "Three.", GO)
        assert waits[-1] == pytest.approx(SLACK * 0.2 * 31 - 3.0)


def test_a_prompt_of_the_study_becomes_nobodys_own(study: Path) -> None:
    """Added by somebody else while the models answered."""
    with Store.open(study) as store:
        number = max(store.prompts()) + 1
        store.add_prompts(["mine"])
        assert not store.add_own_prompt("ann", number, "mine", 0.0, studies.answers(store, number))
        assert store.own_prompts() == {} and number in {p for _, p in store.missing()}


def test_a_study_takes_so_many(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "MOST_OF_ALL", 1)
    with Store.open(study) as store:
        asker = Asking(store, threads=1)
        asker.ask("ann", OWN, GO)
        with pytest.raises(UsageError, match="the most it takes"):
            asker.ask("bob", "Another.", GO)


def test_a_look_at_votes_on_them_is_none_at_the_studys(study: Path) -> None:
    with Store.open(study) as store:
        asker, voting = Asking(store, threads=1), Voting(store)
        asker.ask("ann", OWN, GO)
        shown = voting.next("ann")
        assert shown is not None
        voting.vote(shown.token, "1")
        results(store)
        assert results(store).looks == [] and results(store, own=True).looks == [1]


def test_sides_are_a_coins() -> None:
    """Of 3,000 prompts the heavier stands first on half, whatever came before; each pair once."""
    firsts = []
    for voter, prompt in itertools.product(range(30), range(1, 101)):
        items = own(prompt, 3, SETTINGS, f"voter-{voter}")
        assert {frozenset((i.first[0], i.second[0])) for i in items} == {
            frozenset(pair) for pair in itertools.combinations(range(3), 2)
        }
        assert items == own(prompt, 3, SETTINGS, f"voter-{voter}")
        firsts.append(items[0].first < items[0].second)
    assert abs(sum(firsts) - 1500) < 4 * (3000 / 4) ** 0.5
    repeats = sum(a == b for a, b in itertools.pairwise(firsts))
    assert abs(repeats - 1499.5) < 4 * (2999 / 4) ** 0.5


def test_of_three_models_one_pair_comes_now_and_the_others_last(tmp_path: Path) -> None:
    with studies.written(tmp_path / "s.sqlite", models=3, prompts=2) as store:
        voting, order = Voting(store), []
        add(store, "ann", "mine")
        while (shown := voting.next("ann")) is not None:
            order.append(shown.prompt)
            voting.vote(shown.token, "tie")
        assert order[0] == "mine" and order[-2:] == ["mine", "mine"] and len(order) == 9
        named, seen = Voting(store, "named"), 0
        while (shown := named.next("ann")) is not None:
            seen += shown.prompt == "mine"
            named.vote(shown.token, "tie")
        assert seen == 3, "what was voted on blind may be voted on with names"


def test_the_same_text_of_all_is_asked_of_nobody(tmp_path: Path) -> None:
    with studies.written(tmp_path / "s.sqlite", prompts=1) as store:
        number = max(store.prompts()) + 1
        answers = [replace(one, text="alike") for one in studies.answers(store, number)]
        assert store.add_own_prompt("ann", number, "mine", 1e9, answers)
        shown = Voting(store).next("ann")
        assert shown is not None and shown.prompt == "question 1"
        Voting(store).vote(shown.token, "tie")
        assert Voting(store).next("ann") is None
        assert [b.choice for b in store.ballots("blind")] == ["tie", "same"]


def _vote_all(store: Store, voter: str) -> None:
    """Every second prompt for the heavier, the others for the lighter."""
    voting = Voting(store)
    while (shown := voting.next(voter)) is not None:
        wanted = len(store.ballots("blind")) % 2
        voting.vote(shown.token, "1" if studies.author(shown.texts[0]) == wanted else "2")


def test_figures_are_the_studys_unless_asked_for(tmp_path: Path) -> None:
    """Without them: those of the same votes in a study where nobody asked anything. With them:
    those of a study whose file had them."""
    with studies.written(tmp_path / "s.sqlite", prompts=9) as store:
        _vote_all(store, "ann")
        plain = results(store).to_dict()
        for text in ("mine", "mine too"):
            add(store, "ann", text)
        _vote_all(store, "ann")
        voting = Voting(store)
        assert voting.undo("ann") is not None  # of an own prompt; cast anew
        _vote_all(store, "ann")
        out, among = results(store).to_dict(), results(store, own=True).to_dict()
    assert out.pop("own") == {"prompts": 2, "voters": 1, "votes": 2, "included": False}
    assert plain.pop("own")["prompts"] == 0
    assert plain.pop("looks") == [] and out.pop("looks") == [9]
    assert out == plain, "nothing of the study moves by a vote on a voter's own prompt"
    assert among["own"]["included"] and among["prompts"] == among["votes"] == 11
    assert among["undone"] == 1 and out["undone"] == 0
    with studies.written(tmp_path / "t.sqlite", prompts=11) as other:
        _vote_all(other, "ann")
        flat = results(other).to_dict()
        counts = ("votes", "wins", "losses", "ties", "score", "decided", "p_fixed")
        for name in counts:
            assert among["pairs"][0][name] == flat["pairs"][0][name], name


def test_a_look_is_of_what_it_showed(tmp_path: Path) -> None:
    """p is the one for many looks where votes that count came after one, and only there."""
    with studies.written(tmp_path / "s.sqlite", prompts=8) as store:
        voting = Voting(store)
        while (shown := voting.next("ann")) is not None:
            voting.vote(shown.token, "1" if studies.author(shown.texts[0]) == 0 else "2")
        assert results(store).pairs[0].p == results(store).pairs[0].p_fixed < 0.01
        add(store, "ann", "mine")
        shown = voting.next("ann")
        assert shown is not None
        voting.vote(shown.token, "1" if studies.author(shown.texts[0]) == 0 else "2")
        out, among = results(store).pairs[0], results(store, own=True).pairs[0]
        assert out.p == out.p_fixed and out.votes == 8
        assert among.p == among.p_always > 0.01 and among.votes == 9


def test_a_judge_reads_them_and_tells_the_studys(study: Path, models: list[Path]) -> None:
    with Store.open(study) as store:
        Asking(store, threads=1).ask("ann", OWN, GO)
        judge(store, models[0], "f16", threads=1)
        assert results(store).judgements[0].pairs[0].votes == 2
        assert results(store, own=True).judgements[0].pairs[0].votes == 3


def test_a_study_of_before_is_gone_on_with(tmp_path: Path) -> None:
    """Format 1, as it was written: what is in it stays, and what is new is there."""
    path = tmp_path / "s.sqlite"
    with studies.written(path, prompts=2) as store:
        store.add_look(1)
    old = sqlite3.connect(path)
    old.executescript(
        "DROP TABLE own_prompt; ALTER TABLE look DROP COLUMN own;"
        "ALTER TABLE study DROP COLUMN secret;"
    )
    old.execute("PRAGMA user_version = 1")
    old.close()
    secrets = set()
    for _ in range(2):
        with Store.open(path) as store:
            assert store.add_look(1) == [(1, 0)] and len(store.answers()) == 4
            secrets.add(store.secret)
    assert len(secrets) == 1 and len(secrets.pop()) == 32
    with Store.open(path) as store:
        add(store, "ann", "mine")
    again = sqlite3.connect(path)
    for change in ("UPDATE own_prompt SET voter = 'bob'", "DELETE FROM own_prompt"):
        with pytest.raises(sqlite3.IntegrityError, match="only added"):
            again.execute(change)


def test_an_interrupted_study_does_not_make_them_again(study: Path, models: list[Path]) -> None:
    """More prompts of the file get the numbers after; what voters asked is no part of the plan."""
    with Store.open(study) as store:
        Asking(store, threads=1).ask("ann", OWN, GO)
        assert store.missing() == [] and store.answered() == [1, 2]
    trit.compare(models, PROMPTS[:4], study, threads=1)
    with Store.open(study) as store:
        assert store.answered() == [1, 2, 4, 5] and store.prompts()[3] == OWN
        assert len(store.wanted()) == 8
