"""Training sets: facts of one mastery bucket, or a mixture, balanced over topics (paper, section 3.4)."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from hashlib import sha256
from math import ceil
from typing import Literal

from sftlab.errors import UserError
from sftlab.facts.mastery import BUCKETS

MIXED = "mixed"
ALL: Literal["all"] = "all"  # as a size: everything that a bucket holds
MAX_MIXTURE = 100  # characters
Balance = Literal["even", "fill", "none"]
Mixture = Literal["even", "population"]
_ANY = -1  # in place of a bucket: facts of all of them
_MIXTURE_PART = re.compile(r"([0-4]):(\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class DrawRule:
    """How a training set is spread over topics and buckets.

    balance: "even" over the topics; "fill" as even as the topics reach, where the others give what a small topic
    lacks; "none", whatever the topic. mixed: what the bucket "mixed" is: "even" over the buckets, or "population",
    facts of all buckets as often as they occur (the paper's random mixture). replay: facts of the highest bucket that a
    set has beside its others, as a share of its size. leave_out: a topic of which no set has a fact.
    """

    balance: Balance = "even"
    mixed: Mixture = "even"
    replay: float = 0
    leave_out: str | None = None

    def replayed(self, size: int) -> int:
        """The facts that are replayed in a set of this size; at least one where any are."""
        return ceil(size * Fraction(str(self.replay)))

    def candidates(self, topic_of: Mapping[str, str], bucket_of: Mapping[str, int]) -> dict[str, int]:
        """The buckets of the facts that sets are drawn from."""
        return {f: bucket for f, bucket in bucket_of.items() if topic_of.get(f) != self.leave_out}


EVEN = DrawRule()


def draw_training_set(
    topic_of: Mapping[str, str],
    bucket_of: Mapping[str, int],
    bucket: int | str,
    size: int,
    seed: int,
    rule: DrawRule = EVEN,
) -> list[str]:
    """Draw `size` fact ids of one bucket, spread over the topics.

    Args:
        topic_of: topic of every candidate fact, by fact id.
        bucket_of: mastery bucket by fact id; facts without one (errors) are never drawn.
        bucket: 0..4, "mixed" for all five buckets, or a mixture such as "1:0.25+4:0.75", the share of each bucket.
        size: number of facts; what does not divide goes to the first topics in alphabetical order.
        seed: another seed gives another draw. Sets of one seed are nested: a smaller set, where the sizes
            divide evenly, is part of a larger one.
        rule: how it is spread.

    Returns: the fact ids in a seeded order. Replayed facts are drawn after the set's, which are those of a set without
    replay; sets of one seed are nested by their replayed share too.

    Raises UserError naming the bucket, the topic and both numbers where a topic has too few facts, or with "fill" and
    "none" a bucket.
    """
    topics = sorted(set(topic_of.values()) - {rule.leave_out})
    bucket_of = rule.candidates(topic_of, bucket_of)
    if size < 1 or not topics:
        raise UserError(
            f"a training set of {size} facts over {len(topics)} topics",
            value=size,
            expected="a size of at least 1 and at least one topic",
        )
    population = bucket == MIXED and rule.mixed == "population"
    shares = {_ANY: Fraction(1)} if population else bucket_shares(bucket)
    of_bucket = {fact: _ANY if population else bucket_of[fact] for fact in topic_of if fact in bucket_of}
    pool = _Pool(topics, rule.balance, seed, topic_of, of_bucket)
    chosen = [fact for b, count in proportional(size, shares).items() for fact in pool.draw(b, count, size)]
    if rule.replay:
        taken, known = set(chosen), BUCKETS[-1]
        rest = {fact: known for fact in of_bucket if bucket_of[fact] == known and fact not in taken}
        others = _Pool(topics, rule.balance, seed, topic_of, rest)
        chosen += others.draw(known, rule.replayed(size), size, "replay, ")
    return sorted(chosen, key=lambda fact: _draw_key(seed + 1, fact))


def draw_everything(
    topic_of: Mapping[str, str],
    bucket_of: Mapping[str, int],
    bucket: int | str,
    seed: int,
    rule: DrawRule = EVEN,
) -> list[str]:
    """Everything that a bucket holds, in a seeded order; of a mixture the largest set with its shares.

    Of a mixture the buckets that are not used up are drawn as even over the topics as these reach, or with the balance
    "none" whatever the topic. Arguments as `draw_training_set`. Raises UserError where there is no such fact.
    """
    size = all_sizes(rule.candidates(topic_of, bucket_of), [bucket], rule)[str(bucket)]
    if not size:
        raise UserError(
            "holds no facts, so there is no training set of all of them",
            place=f"bucket {bucket}",
            value=ALL,
            advice="leave the bucket out, or score more facts.",
        )
    spread = replace(rule, balance="fill") if rule.balance == "even" else rule
    return draw_training_set(topic_of, bucket_of, bucket, size, seed, spread)


def all_sizes(
    bucket_of: Mapping[str, int], buckets: Iterable[int | str], rule: DrawRule = EVEN
) -> dict[str, int]:
    """How many facts `draw_everything` draws of each bucket or mixture.

    >>> all_sizes({"a": 0, "b": 0, "c": 0, "d": 4}, [0, "0:0.5+4:0.5", "0:0.6+4:0.4"])
    {'0': 3, '0:0.5+4:0.5': 3, '0:0.6+4:0.4': 3}
    """
    counts = Counter(bucket_of.values())
    found = {}
    for bucket in buckets:
        shares = bucket_shares(bucket)
        size = sum(counts.values())
        if bucket != MIXED or rule.mixed != "population":
            size = min(size, *(int((counts[b] + 1) / share) for b, share in shares.items()))
            while any(wanted > counts[b] for b, wanted in proportional(size, shares).items()):
                size -= 1
        found[str(bucket)] = size
    return found


class _Pool:
    """Facts by bucket and topic, and draws from them by seed; without balance all topics are one."""

    def __init__(
        self,
        topics: Sequence[str],
        balance: Balance,
        seed: int,
        topic_of: Mapping[str, str],
        bucket_of: Mapping[str, int],
    ) -> None:
        self._balance, self._seed = balance, seed
        self._topics = [""] if balance == "none" else topics
        self._facts: dict[tuple[int, str], list[str]] = defaultdict(list)
        for fact, bucket in bucket_of.items():
            self._facts[bucket, "" if balance == "none" else topic_of[fact]].append(fact)

    def draw(self, bucket: int, count: int, size: int, what: str = "") -> list[str]:
        """`count` facts of a bucket, for a set of `size`. Raises UserError, which begins with `what`, for too few."""
        name = f"{what}{'all buckets' if bucket == _ANY else f'bucket {bucket}'}"
        there = {topic: len(self._facts[bucket, topic]) for topic in self._topics}
        drawn = []
        for share, topic in zip(_wanted(count, name, there, self._balance, size), self._topics, strict=True):
            drawn += sorted(self._facts[bucket, topic], key=lambda fact: _draw_key(self._seed, fact))[:share]
        return drawn


def _wanted(total: int, name: str, there: Mapping[str, int], balance: Balance, size: int) -> Sequence[int]:
    """Facts to take of each topic. Raises UserError, which names what is drawn, where they are not there."""
    if balance == "even":
        shares = even_shares(total, len(there))
        for share, (topic, count) in zip(shares, there.items(), strict=True):
            if count < share:
                raise UserError(
                    f"a set of {size:,} facts needs {share:,} of it, but there are {count:,}",
                    place=f"{name}, topic {topic}",
                    value=count,
                    advice="ask for a smaller size, score more facts, or set training_sets.balance to fill, which "
                    "takes the rest from the other topics.",
                )
        return shares
    if sum(there.values()) < total:
        raise UserError(
            f"a set of {size:,} facts needs {total:,} of it, but there are {sum(there.values()):,}",
            place=name,
            value=sum(there.values()),
            advice="ask for a smaller size, or score more facts.",
        )
    return filled_shares(total, list(there.values()))


def filled_shares(total: int, there: Sequence[int]) -> list[int]:
    """`total` as whole numbers of at most `there`, as even as they allow; the first ones get what is left over.

    >>> filled_shares(12, [1, 9, 9]), filled_shares(10, [5, 5, 5]), filled_shares(9, [1, 2, 9])
    ([1, 6, 5], [4, 3, 3], [1, 2, 6])
    """
    assert 0 <= total <= sum(there)
    level = 0
    while level < max(there, default=0) and sum(min(count, level + 1) for count in there) <= total:
        level += 1
    shares = [min(count, level) for count in there]
    beyond = [i for i, count in enumerate(there) if count > level]
    for i in beyond[: total - sum(shares)]:
        shares[i] += 1
    return shares


def bucket_shares(bucket: int | str) -> dict[int, Fraction]:
    """Share of each bucket of a training set; exact, positive, in rising order of the bucket, their sum is 1.

    Raises UserError where the text is no bucket, not "mixed", and no mixture whose shares add up to one.
    """
    if bucket == MIXED:
        return {b: Fraction(1, len(BUCKETS)) for b in BUCKETS}
    text = str(bucket)
    if text in map(str, BUCKETS):
        return {int(text): Fraction(1)}
    if len(text) > MAX_MIXTURE:
        raise UserError(
            f"a mixture of {len(text):,} characters",
            place="training set",
            advice=f"at most {MAX_MIXTURE} are read.",
        )
    parts = [_MIXTURE_PART.fullmatch(part) for part in text.split("+")]
    found = {int(part[1]): Fraction(part[2]) for part in parts if part}
    if None in parts or len(found) != len(parts) or any(share == 0 for share in found.values()):
        raise UserError(
            "is none",
            place=f"training set {text!r}",
            value=text,
            expected=(
                "a bucket 0 to 4, mixed, or a mixture of different buckets with shares above 0, such as 1:0.25+4:0.75"
            ),
        )
    if sum(found.values()) != 1:
        raise UserError(
            f"the shares add up to {float(sum(found.values())):g}",
            place=f"training set {text!r}",
            value=text,
            advice="they must add up to 1.",
        )
    return dict(sorted(found.items()))


def canonical_bucket(bucket: int | str) -> int | str:
    """The one writing of what `bucket_shares` reads: rising buckets, shares without trailing zeros; a mixture
    of one bucket is that bucket. Raises UserError as `bucket_shares`.
    """
    shares = bucket_shares(bucket)
    if bucket == MIXED:
        return MIXED
    if len(shares) == 1:
        return next(iter(shares))
    written = dict(part.split(":") for part in str(bucket).split("+"))
    return "+".join(f"{b}:{Decimal(written[str(b)]).normalize():f}" for b in shares)


def proportional(total: int, shares: Mapping[int, Fraction]) -> dict[int, int]:
    """`total` split by exact shares into whole numbers; what is left over goes to the largest remainders,
    among equal ones to the first.
    """
    exact = {key: total * share for key, share in shares.items()}
    counts = {key: int(value) for key, value in exact.items()}
    order = sorted(counts, key=lambda key: (counts[key] - exact[key], list(counts).index(key)))
    for key in order[: total - sum(counts.values())]:
        counts[key] += 1
    return counts


def even_shares(total: int, parts: int) -> Sequence[int]:
    """`total` as `parts` whole numbers that differ by at most one, the larger ones first."""
    return [total // parts + (i < total % parts) for i in range(parts)]


def largest_even(counts: Sequence[int]) -> int:
    """The largest total whose even shares (`even_shares`) these counts hold.

    >>> largest_even([3, 2, 5]), largest_even([2, 3, 5]), largest_even([0, 4])
    (7, 6, 0)
    """
    least = min(counts, default=0)
    more = next((i for i, count in enumerate(counts) if count == least), 0)
    return least * len(counts) + more


def largest_sizes(
    topic_of: Mapping[str, str], bucket_of: Mapping[str, int], rule: DrawRule = EVEN
) -> dict[str, int]:
    """The largest training set that can be drawn of each bucket, and of `mixed`; arguments as `draw_training_set`."""
    topics = sorted(set(topic_of.values()))
    counts = Counter((bucket_of[fact], topic) for fact, topic in topic_of.items() if fact in bucket_of)
    largest = largest_even if rule.balance == "even" else sum
    sizes = {str(b): largest([counts[b, topic] for topic in topics]) for b in BUCKETS}
    if rule.mixed == "population":
        return sizes | {MIXED: largest([sum(counts[b, topic] for b in BUCKETS) for topic in topics])}
    return sizes | {MIXED: largest_even(list(sizes.values()))}


def _draw_key(seed: int, fact: str) -> bytes:
    return sha256(f"draw\x1f{seed}\x1f{fact}".encode()).digest()
