"""/compare: the blind test. What an answer's author is stands in no field, header or time.

Both answers come in one response, made long before. A presentation's token is random, and every
response has the same fields. Names come with results alone, and those once one pass of the study
is voted on: who saw them grow vote by vote would know the sides.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field, StringConstraints

from trit.compare import Asking, Presentation, Voting, results
from trit.compare.asking import MOST_LETTERS
from trit.server._documents import refusals
from trit.server._votes import STRICT, VoterName

Token = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class Voter(BaseModel):
    """Who votes: any name, random and kept by the voter."""

    model_config = STRICT
    voter: VoterName


class Vote(BaseModel):
    """On a presentation: the answer called 1, that called 2, a tie, or both are bad."""

    model_config = STRICT
    token: Token
    choice: Literal["1", "2", "tie", "bad"]


class Belief(BaseModel):
    """Which answer of a presentation that was voted on is taken for the heavier file's."""

    model_config = STRICT
    token: Token
    heavier: Literal["1", "2", "unsure"]


class Shown(BaseModel):
    """Two answers to a prompt; `names` in the arm that shows them."""

    token: str
    prompt: str
    answers: Annotated[list[str], Field(min_length=2, max_length=2)]
    names: list[str] | None


class Room(BaseModel):
    """Prompts of a voter's own that are `left` to ask, and the `letters` that one may have."""

    left: int
    letters: int


class Turn(BaseModel):
    """What a voter sees: null when all is voted on. `voted` of `planned` comparisons are. `own`:
    null where no prompts of a voter's own are answered."""

    presentation: Shown | None
    voted: int
    planned: int
    ask_belief: bool
    own: Room | None


class Done(BaseModel):
    """It is written down."""

    done: Literal[True] = True


class Results(BaseModel):
    """Of all voters, on the study's prompts; null until `planned` votes are in. As `trit compare
    --results --json`: votes on prompts of voters' own are counted, and in no figure."""

    votes: int
    planned: int
    results: dict[str, Any] | None


def router(voting: Voting, asking: Asking | None = None) -> APIRouter:
    """The endpoints of one study. `asking`: what answers prompts of a voter's own, if they are."""
    made = APIRouter(prefix="/compare", responses=refusals())

    def turn(voter: str, shown: Presentation | None) -> Turn:
        room = None if asking is None else Room(left=asking.left(voter), letters=MOST_LETTERS)
        return _turn(voting, voter, shown, room)

    @made.post("/next")
    def next_one(body: Voter) -> Turn:
        """The next two answers for a voter; the same ones until they are voted on."""
        return turn(body.voter, voting.next(body.voter))

    @made.post("/votes")
    def vote(body: Vote) -> Done:
        """A vote. A token is good for one."""
        voting.vote(body.token, body.choice)
        return Done()

    @made.post("/beliefs")
    def believe(body: Belief) -> Done:
        """Which one is believed to be the heavier file's. Whether it is, is not said."""
        voting.believe(body.token, body.heavier)
        return Done()

    @made.post("/undo")
    def undo(body: Voter) -> Turn:
        """Take back a voter's last vote, and see the two answers once more, as they stood."""
        shown = voting.undo(body.voter) or voting.next(body.voter)
        return turn(body.voter, shown)

    @made.get("/results")
    def totals() -> Results:
        """What all votes say."""
        own = voting.store.own_prompts()
        votes = sum(ballot.prompt not in own for ballot in voting.store.ballots("blind"))
        planned = voting.planned()
        found = results(voting.store).to_dict() if votes >= planned > 0 else None
        if found is not None:  # where files lie is no voter's affair
            del found["study"]
            for model in found["models"]:
                del model["path"]
        return Results(votes=votes, planned=planned, results=found)

    return made


def _turn(voting: Voting, voter: str, shown: Presentation | None, room: Room | None) -> Turn:
    progress = voting.progress(voter)
    return Turn(
        presentation=None if shown is None else _shown(shown),
        voted=progress.voted,
        planned=progress.planned,
        ask_belief=voting.store.settings.ask_belief and voting.arm == "blind",
        own=room,
    )


def _shown(shown: Presentation) -> Shown:
    return Shown(
        token=shown.token,
        prompt=shown.prompt,
        answers=list(shown.texts),
        names=None if shown.names is None else list(shown.names),
    )
