"""Blind comparison of quants: the same prompts to several files, names hidden, votes, statistics.

    found = compare(["q8_0.gguf", "q2_k.gguf"], ["Name three fruits.", …], "study.sqlite",
                    judge="f16.gguf")
    found.pairs[0].score, found.pairs[0].told

`compare` makes the answers (making.py) and says what is known; Voting (voting.py) is what command
line and page ask people by, Asking (asking.py) what answers prompts of a voter's own.
"""

from trit.compare._comparison import Comparison, begin, compare, own_settings, results
from trit.compare.asking import Asking
from trit.compare.judge import judge
from trit.compare.making import Making, make
from trit.compare.store import Store
from trit.compare.study import Settings, read_prompts
from trit.compare.voting import Presentation, Voting

__all__ = [
    "Asking",
    "Comparison",
    "Making",
    "Presentation",
    "Settings",
    "Store",
    "Voting",
    "begin",
    "compare",
    "judge",
    "make",
    "own_settings",
    "read_prompts",
    "results",
]
