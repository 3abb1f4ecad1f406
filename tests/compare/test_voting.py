"""What voters are shown, what is kept of it, and that nothing of it can be changed."""

from __future__ import annotations

import itertools
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from compare import studies
from trit.compare.plan import following, schedule
from trit.compare.store import Store
from trit.compare.study import Settings
from trit.compare.voting import Voting
from trit.errors import InvalidFileError, UsageError


def test_a_schedule_is_even_at_every_moment() -> None:
    """Prompts, pairs and sides; the same again from the same seed, another for another voter."""
    settings = Settings(catch_every=0, seed=4)
    items = schedule(range(1, 13), 3, settings, "ann")
    assert len({item.key for item in items}) == len(items) == 36
    for start in range(0, 36, 12):
        part = items[start : start + 12]
        assert len({item.prompt for item in part}) == 12
        assert set(Counter(item.key[1] for item in part).values()) == {4}
    first = Counter((item.key[1], min(item.key[1]) == item.first) for item in items)
    assert set(first.values()) == {6}
    assert items == schedule(range(1, 13), 3, settings, "ann")
    assert items != schedule(range(1, 13), 3, settings, "bob")


def test_sides_do_not_take_turns() -> None:
    """Half of the time the side is that of the pair's last item: nobody can follow a model."""
    stays = 0
    for voter in range(200):
        items = schedule(range(1, 21), 2, Settings(catch_every=0), str(voter))
        stays += sum(a.first == b.first for a, b in itertools.pairwise(items))
    assert 0.45 < stays / (200 * 19) < 0.5  # (n/2 − 1) of n − 1 = 47%


def test_catches_are_pairs_of_one_model() -> None:
    items = schedule(range(1, 31), 2, Settings(catch_every=10), "ann")
    own = [item for item in items if item.first[0] == item.second[0]]
    assert sorted(item.prompt for item in own) == [10, 20, 30] and len(items) == 33
    assert all({item.first, item.second} == {(0, 0), (0, 1)} for item in own)


def test_what_has_the_fewest_votes_comes_first() -> None:
    items = schedule(range(1, 5), 2, Settings(catch_every=0), "ann")
    votes = {item.key: 1 for item in items[:3]}
    assert following(items, set(), votes) == items[3]
    assert following(items, {items[3].key}, votes) == items[0]
    assert following(items, {item.key for item in items}, votes) is None


def test_a_whole_pass(tmp_path: Path) -> None:
    """Who likes the heavier model is seen to; texts that are the same are asked for by nobody."""
    with studies.written(tmp_path / "s.sqlite", same=(3, 7)) as store:
        voting = Voting(store)
        tokens = set()
        while (shown := voting.next("ann")) is not None:
            assert voting.next("ann") == shown, "it stays until the vote"
            assert shown.names is None
            tokens.add(shown.token)
            voting.vote(shown.token, "1" if studies.author(shown.texts[0]) == 0 else "2")
            voting.believe(shown.token, "unsure")
        assert len(tokens) == 8 and voting.progress("ann").voted == voting.planned() == 10
        cast = store.ballots("blind")
        assert Counter(b.choice for b in cast) == {"heavier": 8, "same": 2}
        assert Counter(b.first for b in cast)[True] in range(2, 7)
        assert {b.believed for b in cast} == {"unsure", None}


def test_votes_that_are_none(tmp_path: Path) -> None:
    with studies.written(tmp_path / "s.sqlite") as store:
        voting = Voting(store)
        shown = voting.next("ann")
        assert shown is not None
        with pytest.raises(UsageError, match="choice"):
            voting.vote(shown.token, "A")
        with pytest.raises(UsageError, match="open"):
            voting.vote("nothing", "1")
        with pytest.raises(UsageError, match="no vote stands"):
            voting.believe(shown.token, "1")
        voting.vote(shown.token, "tie")
        with pytest.raises(UsageError, match="open"):
            voting.vote(shown.token, "1")
        voting.believe(shown.token, "2")
        with pytest.raises(UsageError, match="known"):
            voting.believe(shown.token, "1")
        assert len(store.ballots("blind")) == 1


def test_an_undo_keeps_the_record(tmp_path: Path) -> None:
    """The same pair on the same sides, with a token of its own; the old vote stays in the file."""
    with studies.written(tmp_path / "s.sqlite") as store:
        voting = Voting(store)
        assert voting.undo("ann") is None
        shown = voting.next("ann")
        assert shown is not None
        voting.vote(shown.token, "1")
        voting.believe(shown.token, "1")
        following_one = voting.next("ann")
        again = voting.undo("ann")
        assert again is not None and following_one is not None
        assert (again.prompt, again.texts) == (shown.prompt, shown.texts)
        assert again.token != shown.token and voting.next("ann") == again
        assert voting.undo("bob") is None and store.ballots("blind") == []
        voting.vote(again.token, "2")
        assert voting.next("ann") == following_one, "what was open before is open again"
        (ballot,) = store.ballots("blind")
        assert ballot.believed is None and len(store.undone()) == 1
        other = sqlite3.connect(tmp_path / "s.sqlite")
        assert other.execute("SELECT choice FROM vote ORDER BY id").fetchall() == [("1",), ("2",)]


@pytest.mark.parametrize("table", ["vote", "presentation", "answer", "undo", "belief", "look"])
def test_rows_are_only_added(tmp_path: Path, table: str) -> None:
    with studies.written(tmp_path / "s.sqlite") as store:
        voting = Voting(store)
        for _ in range(2):
            shown = voting.next("ann")
            assert shown is not None
            voting.vote(shown.token, "1")
            voting.believe(shown.token, "1")
        voting.undo("ann")
        store.add_look(1)
        other = sqlite3.connect(store.path)
        column = other.execute(f"PRAGMA table_info({table})").fetchall()[-1][1]
        for change in (f"UPDATE {table} SET {column} = 0", f"DELETE FROM {table}"):
            with pytest.raises(sqlite3.IntegrityError, match="only added"):
                other.execute(change)


def test_names_are_shown_for_what_was_voted_on_blind(tmp_path: Path) -> None:
    with studies.written(tmp_path / "s.sqlite", same=(2,)) as store:
        blind, named = Voting(store), Voting(store, "named")
        assert named.next("ann") is None, "blind comes first"
        for _ in range(6):
            shown = blind.next("ann")
            assert shown is not None
            blind.vote(shown.token, "tie")
        seen = set()
        while (shown := named.next("ann")) is not None:
            assert shown.names is not None
            assert [studies.NAMES.index(n) for n in shown.names] == [
                studies.author(t) for t in shown.texts
            ]
            seen.add(shown.prompt)
            named.vote(shown.token, "1")
        assert len(seen) == 6 and "question 2" not in seen
        assert len(store.ballots("named")) == 6


def test_prompts_come_later(tmp_path: Path) -> None:
    """A prompt is asked about once all models have answered it."""
    with studies.written(tmp_path / "s.sqlite", prompts=4) as store:
        assert store.add_prompts(["question 1", "one more"]) == 1
        assert store.answered() == [1, 2, 3, 4] and Voting(store).planned() == 4


def test_it_goes_on_in_another_process(tmp_path: Path) -> None:
    settings = Settings(seed=3, system="Be brief.", catch_every=5)
    with studies.written(tmp_path / "s.sqlite", settings=settings) as store:
        shown = Voting(store).next("ann")
        models = store.models
    with Store.open(tmp_path / "s.sqlite") as store:
        assert Voting(store).next("ann") == shown
        assert store.settings == settings and store.models == models


def test_looks_are_kept(tmp_path: Path) -> None:
    with studies.written(tmp_path / "s.sqlite") as store:
        assert [store.add_look(n) for n in (3, 3, 5)] == [[], [(3, 0)], [(3, 0)]]


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + bytes(4096)])
def test_files_that_are_no_study(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "s.sqlite"
    path.write_bytes(content)
    with pytest.raises(InvalidFileError, match="study"):
        Store.open(path)
    with pytest.raises(InvalidFileError, match="no such study"):
        Store.open(tmp_path / "missing.sqlite")
    with pytest.raises(UsageError, match="there already"):
        Store.create(path, Settings(), [])
