"""Which examples are trained on: seeded draws, mixtures, all sets together, all but one.

A draw sorts examples by a hash of the seed and their content. Hence a draw of one seed is the beginning of every
larger one, does not depend on the order of the file, and another example in the file displaces one at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from hashlib import sha256
from heapq import heappush, heapreplace

from sftlab.datasets.conversations import Conversation
from sftlab.datasets.encode import Encoder
from sftlab.errors import UserError

MAX_HELD = 2**31  # characters of the examples of a draw


@dataclass(frozen=True)
class Drawn:
    """Examples in the order of the draw, and how many distinct examples and repetitions the set has."""

    examples: tuple[Conversation, ...]
    distinct: int
    repeated: int


def draw_key(seed: int, key: str) -> bytes:
    """The place of an example in the draws of a seed."""
    return sha256(f"draw\x1f{seed}\x1f{key}".encode()).digest()


def draw(
    conversations: Iterable[Conversation],
    size: int | None,
    seed: int,
    fits: Callable[[Conversation], bool] | None = None,
    name: str = "data",
    fewer: bool = False,
) -> Drawn:
    """The first `size` examples (None: all) in the seed's order that fit; equal examples count once.

    fewer: whether a set with fewer examples gives all that it has.

    `conversations` is read once, and no more than `size` of it is held. `fits` is asked only about examples that would
    be drawn if they did, as it is usually a tokenizer.
    Raises UserError naming the set where too few examples fit.
    """
    if size is not None and size < 1:
        raise UserError(f"a draw of {size:,} examples", place=name, expected="1 or more")
    best: list[tuple[int, int]] = []  # a heap whose first has the last place of those held
    held: dict[int, Conversation] = {}
    seen: set[bytes] = set()
    repeated = characters = 0
    for conversation in conversations:
        key = draw_key(seed, conversation.key)
        if key in seen:
            repeated += 1
            continue
        seen.add(key)
        place = int.from_bytes(key, "big")
        full = size is not None and len(best) == size
        if full and place > -best[0][0]:
            continue
        if fits is not None and not fits(conversation):
            continue
        number = len(seen)
        held[number] = conversation
        characters += conversation.characters
        if full:
            characters -= held.pop(heapreplace(best, (-place, number))[1]).characters
        else:
            heappush(best, (-place, number))
        if characters > MAX_HELD:
            raise UserError(
                f"the examples drawn so far have over {MAX_HELD:,} characters",
                place=conversation.where,
                advice="ask for fewer.",
            )
    if (size is not None and len(best) < size and not fewer) or not best:
        wanted = f"{size:,}" if size is not None else "1 or more"
        raise UserError(
            f"{wanted} examples are wanted, and {len(best):,} of its {len(seen):,} distinct examples fit",
            place=name,
            advice="ask for fewer, or raise max_tokens.",
        )
    return Drawn(tuple(held[number] for _, number in sorted(best, reverse=True)), len(seen), repeated)


def within(encoders: Sequence[Encoder], max_tokens: int) -> Callable[[Conversation], bool]:
    """Whether an example has at most `max_tokens` tokens under every tokenizer, in its template."""
    return lambda conversation: all(encoder.length(conversation) <= max_tokens for encoder in encoders)


def mixture(
    sets: Mapping[str, Sequence[Conversation]], shares: Mapping[str, Fraction], size: int, seed: int
) -> list[Conversation]:
    """`size` examples of several sets, each the beginning of its draw, in a seeded order over all of them.

    shares: of each set, in any unit. Counts follow Sainte-Lague's rule: they are exact where the shares divide
    the size, and a smaller mixture is part of a larger one. An example that two sets hold is there twice.
    Raises UserError for an unknown set, a share that is not above 0, and a set with too few examples.
    """
    for name, share in shares.items():
        if name not in sets:
            raise UserError(
                f"has no set {name!r}", place="mixture", value=name, advice=f"the sets are {', '.join(sets)}."
            )
        if share <= 0:
            raise UserError(f"the share of {name} is {share}", place="mixture", expected="a number above 0")
    counts = apportioned(size, shares)
    for name, count in counts.items():
        if count > len(sets[name]):
            raise UserError(
                f"needs {count:,} examples of {name}, which has {len(sets[name]):,}",
                place="mixture",
                advice="lower its share or the size.",
            )
    chosen = [(name, example) for name, count in counts.items() for example in sets[name][:count]]
    chosen.sort(key=lambda pair: draw_key(seed, f"{pair[0]}\x1f{pair[1].key}"))
    return [example for _, example in chosen]


def together(sets: Mapping[str, Sequence[Conversation]], seed: int) -> list[Conversation]:
    """All examples of all sets in a seeded order."""
    sizes = {name: Fraction(len(examples)) for name, examples in sets.items()}
    return mixture(sets, sizes, sum(map(len, sets.values())), seed)


def leave_one_out(sets: Mapping[str, Sequence[Conversation]], seed: int) -> dict[str, list[Conversation]]:
    """By the name of each set, all examples of the others. Raises UserError for fewer than two sets."""
    if len(sets) < 2:
        raise UserError(
            f"needs two or more sets, and there is {', '.join(sets) or 'none'}", place="leave-one-out"
        )
    return {left: together({name: sets[name] for name in sets if name != left}, seed) for left in sets}


def apportioned(total: int, shares: Mapping[str, Fraction]) -> dict[str, int]:
    """`total` split by shares into whole numbers that never fall as the total grows (Sainte-Lague).

    The next one goes to the largest share / (2 count + 1), among equal ones to the first name in alphabetical order.
    """
    if total < 1 or not shares:
        raise UserError(
            f"{total:,} examples of {len(shares)} sets", place="mixture", expected="1 or more of each"
        )
    weight = sum(shares.values())
    # No count is below its quota less one for each set: start there, and give out the rest one by one.
    counts = {name: max(0, int(total * share / weight) - len(shares)) for name, share in shares.items()}
    for _ in range(total - sum(counts.values())):
        chosen = min(sorted(shares), key=lambda name: -shares[name] / (2 * counts[name] + 1))
        counts[chosen] += 1
    return counts
