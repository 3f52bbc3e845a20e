"""Which processes are killed when: drawn from a seed, spread over all stages, and nothing but that."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

# Share of the kills that falls into a stage, and the longest delay after a piece has begun, in seconds.
STAGES: dict[str, tuple[int, float]] = {
    "model": (6, 0.3),
    "mastery": (16, 1.0),
    "tuned": (16, 0.2),
    "change": (3, 0.1),
    "evaluation": (15, 1.5),
    "results": (1, 0.2),
    "best": (2, 0.2),
    "report": (1, 0.5),
}
# Who may be hit, and how often against the others. A head that dies takes the driver and all nodes with it.
ANYWHERE = {"driver": 6, "raylet": 2, "node": 2, "head": 1}
VICTIMS: dict[str, dict[str, int]] = {
    "mastery": {"scorer": 6, "driver": 3, "raylet": 2, "node": 3, "head": 1},
    "tuned": {"trainer": 6, "driver": 3, "raylet": 2, "node": 3, "head": 1},
    "evaluation": {"engine": 6, "driver": 3, "raylet": 2, "node": 3, "head": 1},
}
# Named faults, once each: (stage, what happens). Those that need root are left out without it.
FAULTS = (
    ("mastery", "full disk"),
    ("mastery", "hang"),
    ("mastery", "cut off"),
    ("tuned", "full disk"),
    ("tuned", "cut off"),
    ("tuned", "hang"),
    ("evaluation", "hang"),
    ("evaluation", "read-only store"),
    ("evaluation", "full disk"),
)


@dataclass(frozen=True, order=True)
class Blow:
    """What is done to whom: once `piece` pieces of a stage have begun, and `delay` seconds later."""

    order: int
    piece: int
    delay: float
    stage: str
    victim: str
    chance: float  # in [0, 1): which of several that could be hit


# What the short run of the tests strikes beside its kills: one of each kind that would seldom be drawn. Stages without
# engines where that is possible, as the start of an engine is what takes time.
SHORT = (
    Blow(0, 0, 0.0, "model", "driver", 0.0),
    Blow(1, 0, 0.0, "mastery", "hang", 0.0),
    Blow(2, 2, 0.0, "tuned", "cut off", 0.1),
    Blow(3, 0, 0.0, "change", "read-only store", 0.0),
)


def short(seed: int, kills: int, totals: Mapping[str, int]) -> list[Blow]:
    """A few kills, and the blows of SHORT among them, in the order in which they come."""
    return sorted([*draw(seed, kills, totals), *SHORT])


def draw(seed: int, kills: int, totals: Mapping[str, int], faults: bool = False) -> list[Blow]:
    """Kills in the order in which they come; `totals` are the pieces of each stage."""
    drawn = random.Random(seed)
    blows = []
    for order, (stage, share) in enumerate(shares(kills).items()):
        named = [fault for at, fault in FAULTS if at == stage] if faults else []
        victims = [*spread(VICTIMS.get(stage, ANYWHERE), share, drawn), *named]
        drawn.shuffle(victims)
        pieces = sorted(pick(totals[stage], len(victims), drawn))
        for piece, victim in zip(pieces, victims, strict=True):
            delay = drawn.uniform(0, STAGES[stage][1])
            blows.append(Blow(order, piece, delay, stage, victim, drawn.random()))
    return blows


def shares(kills: int) -> dict[str, int]:
    """The kills of each stage by its weight, by largest remainders."""
    whole = sum(weight for weight, _ in STAGES.values())
    exact = {stage: kills * weight / whole for stage, (weight, _) in STAGES.items()}
    given = {stage: int(share) for stage, share in exact.items()}
    rest = sorted(exact, key=lambda stage: given[stage] - exact[stage])
    for stage in rest[: kills - sum(given.values())]:
        given[stage] += 1
    return given


def spread(weights: Mapping[str, int], count: int, drawn: random.Random) -> list[str]:
    """`count` victims, each kind about as often as its weight says, and each once before one comes twice too often."""
    deck = [victim for victim, weight in weights.items() for _ in range(weight)]
    found: list[str] = []
    while len(found) < count:
        drawn.shuffle(deck)
        found += deck
    return found[:count]


def pick(total: int, count: int, drawn: random.Random) -> list[int]:
    """`count` pieces of 0 .. total - 1, each once as long as there are enough."""
    found: list[int] = []
    while len(found) < count:
        found += drawn.sample(range(total), min(total, count - len(found)))
    return found
