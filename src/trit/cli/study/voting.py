"""Blind votes on a terminal: the prompt, one answer after the other at one pace, a key.

Answers appear at so many characters a second, whoever wrote them. What one types is a letter and
Enter; nothing of a model but its texts is shown, and results are another command's.
"""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from trit.cli._terminal import counted, note
from trit.cli.chat.screen import Screen
from trit.errors import TritError, UsageError

if TYPE_CHECKING:
    from trit.compare import Asking, Presentation, Store
    from trit.compare.study import Arm
    from trit.compare.voting import Voting

PACE = 400  # characters a second
_STEP = 20  # characters at a time
_CHOICES = {"1": "1", "a": "1", "2": "2", "b": "2", "t": "tie", "n": "bad"}
_BELIEFS = {"1": "1", "a": "1", "2": "2", "b": "2", "": "unsure"}
_KEYS = "1 or 2 is better, t tie, n neither is any good, u undo, q leave: "
_KEYS_OWN = "1 or 2 is better, t tie, n neither, p a prompt of yours, u undo, q leave: "
_BELIEF_KEYS = "which do you believe is the heavier file? 1, 2, or Enter for no idea: "


def vote(store: "Store", arm: "Arm", asking: "Asking | None", voter: str) -> None:
    """Ask until all is voted on, or the voter leaves. `asking`: answers prompts of the voter's own;
    None: there are none."""
    from trit.compare import Voting

    voting, screen = Voting(store, arm), Screen.of("auto")
    shown = voting.next(voter)
    if shown is None and arm == "named":
        note("nothing to vote on with names: vote blind first, as the same --voter")
        return
    with suppress(EOFError):  # Ctrl-D leaves
        while shown is not None:
            _show(voting, voter, shown, screen)
            shown = _turn(voting, voter, shown, asking)
    progress = voting.progress(voter)
    more = "" if progress.voted < progress.planned else "; see --results"
    note(f"{progress.voted} of {progress.planned} comparisons voted on, all kept{more}")


def _turn(
    voting: "Voting", voter: str, shown: "Presentation", asking: "Asking | None"
) -> "Presentation | None":
    """What comes after a key; EOFError to leave."""
    for key in _typed(_KEYS if asking is None else _KEYS_OWN):
        if key == "q":
            raise EOFError
        if key == "u":
            before = voting.undo(voter)
            if before is not None:
                return before
            note("there is no vote to take back")
        elif key == "p" and asking is not None:
            if _asked(asking, voter):
                return voting.next(voter)
        elif key in _CHOICES:
            voting.vote(shown.token, _CHOICES[key])
            if voting.store.settings.ask_belief and voting.arm == "blind":
                heavier = next(k for k in _typed(_BELIEF_KEYS) if k in _BELIEFS)
                voting.believe(shown.token, _BELIEFS[heavier])
            return voting.next(voter)
    raise EOFError


def _asked(asking: "Asking", voter: str) -> bool:
    """Whether a prompt was typed, and there are two answers to it to vote on."""
    try:
        text = input(f"your prompt ({counted(asking.left(voter), 'prompt')} left): ")
        asking.checked(voter, text)
        note("the answers are being made; Ctrl-C cancels")
        found = asking.ask(voter, text, threading.Event())
    except UsageError as error:
        note(str(error))
        return False
    except TritError:  # it may name a model
        note("the models of this study could not answer; --page shows why to who runs it")
        return False
    except KeyboardInterrupt:
        note("\ncancelled; nothing of it is kept")
        return False
    assert found is not None, "Ctrl-C alone cancels"
    if found.same:
        note("all models wrote the same, so there is nothing to vote on")
    return not found.same


def _typed(prompt: str) -> Iterator[str]:
    """Lines, in lower case, until Ctrl-D."""
    while True:
        yield input(prompt).strip().lower()


def _show(voting: "Voting", voter: str, shown: "Presentation", screen: Screen) -> None:
    progress = voting.progress(voter)
    screen.write(f"\n── {progress.voted + 1} of {progress.planned} ".ljust(81, "─") + "\n")
    screen.write(f"{shown.prompt}\n")
    for number, text in enumerate(shown.texts, 1):
        name = "" if shown.names is None else f" {shown.names[number - 1]} "
        screen.write(f"\n── {number} ──{name}\n")
        for start in range(0, len(text), _STEP):
            screen.write(text[start : start + _STEP])
            time.sleep(len(text[start : start + _STEP]) / PACE)
        screen.write("\n")
    screen.write("\n")
    sys.stdout.flush()
