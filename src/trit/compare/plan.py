"""Which two answers a voter sees next, and on which side.

A voter's schedule is drawn from the study's seed and what the caller adds: the voter's name and a
secret of the study's file. It has rounds in which every prompt comes once, each with another pair,
so that pairs and prompts are even at every moment and no prompt comes back soon. On half of a
pair's prompts the one answer stands first, on half the other, in an order that nobody can foretell
(taking turns would let a voter follow the better one). Of what a voter has not seen yet, that with
the fewest votes of all comes first.

A prompt of the voter's own is shown as soon as it is answered, with one pair; its other pairs come
after all else.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Collection, Mapping, Sequence

from trit.compare.study import Item, Settings

Key = tuple[int, frozenset[tuple[int, int]]]


def schedule(prompts: Sequence[int], models: int, settings: Settings, drawn_by: str) -> list[Item]:
    """All items of a study, in this voter's order. `models` ≥ 2, prompts by number."""
    chance = random.Random(f"{settings.seed}/{drawn_by}")  # hashed by sha512, the same everywhere
    pairs = list(itertools.combinations(range(models), 2))
    chance.shuffle(pairs)
    order = list(prompts)
    chance.shuffle(order)
    swaps = {pair: _halves(len(order), chance) for pair in pairs}
    items = [
        _item(prompt, pair, swaps[pair][place])
        for turn in range(len(pairs))
        for place, prompt in enumerate(order)
        for pair in [pairs[(place + turn) % len(pairs)]]
    ]
    for prompt in filter(settings.catches, order):
        swapped = chance.random() < 0.5
        items.insert(chance.randrange(len(items) + 1), _catch(prompt, swapped))
    return items


def following(
    items: Sequence[Item], seen: Collection[Key], votes: Mapping[Key, int]
) -> Item | None:
    """The first item with the fewest votes of those not `seen`; None after the last."""
    left = [item for item in items if item.key not in seen]
    return min(left, key=lambda item: votes.get(item.key, 0), default=None)


def own(prompt: int, models: int, settings: Settings, drawn_by: str) -> list[Item]:
    """The items of a prompt that is this voter's own: every pair once, in no order, each with its
    sides by the toss of a coin."""
    chance = random.Random(f"{settings.seed}/{drawn_by}/own {prompt}")
    pairs = list(itertools.combinations(range(models), 2))
    chance.shuffle(pairs)
    return [_item(prompt, pair, chance.random() < 0.5) for pair in pairs]


def _halves(count: int, chance: random.Random) -> list[bool]:
    """As many True as False, one more of either where the count is odd."""
    sides = [place % 2 == 0 for place in range(count + chance.randrange(2))][-count:]
    chance.shuffle(sides)
    return sides


def _item(prompt: int, pair: tuple[int, int], swapped: bool) -> Item:
    first, second = reversed(pair) if swapped else pair
    return Item(prompt, (first, 0), (second, 0))


def _catch(prompt: int, swapped: bool) -> Item:
    return Item(prompt, (0, int(swapped)), (0, int(not swapped)))
