"""Training sets: facts of one mastery bucket, or mixed, balanced over topics (paper, section 3.4)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from hashlib import sha256

from sftlab.errors import UserError
from sftlab.facts.mastery import BUCKETS

MIXED = "mixed"


def draw_training_set(
    topic_of: Mapping[str, str], bucket_of: Mapping[str, int], bucket: int | str, size: int, seed: int
) -> list[str]:
    """Draw `size` fact ids of one bucket, spread evenly over the topics.

    Args:
        topic_of: topic of every candidate fact, by fact id.
        bucket_of: mastery bucket by fact id; facts without one (errors) are never drawn.
        bucket: 0..4, or "mixed" for an even spread over the five buckets as well.
        size: number of facts; what does not divide goes to the first topics in alphabetical order.
        seed: another seed gives another draw. Sets of one seed are nested: a smaller set, where the sizes
            divide evenly, is part of a larger one.

    Returns: the fact ids in a seeded order.

    Raises UserError naming the bucket, the topic and both numbers where a topic has too few facts.
    """
    topics = sorted(set(topic_of.values()))
    if size < 1 or not topics:
        raise UserError(f"A training set needs a size of at least 1 and at least one topic, not {size}.")
    buckets = BUCKETS if bucket == MIXED else (int(bucket),)
    strata: dict[tuple[int, str], list[str]] = defaultdict(list)
    for fact, topic in topic_of.items():
        if fact in bucket_of:
            strata[bucket_of[fact], topic].append(fact)
    chosen: list[str] = []
    for share_of_bucket, b in zip(even_shares(size, len(buckets)), buckets, strict=True):
        for share, topic in zip(even_shares(share_of_bucket, len(topics)), topics, strict=True):
            facts = sorted(strata[b, topic], key=lambda fact: _draw_key(seed, fact))
            if len(facts) < share:
                raise UserError(
                    f"Bucket {b}, topic {topic}: a set of {size:,} facts needs {share:,} of it, "
                    f"but there are {len(facts):,}. Ask for a smaller size, or score more facts."
                )
            chosen += facts[:share]
    return sorted(chosen, key=lambda fact: _draw_key(seed + 1, fact))


def even_shares(total: int, parts: int) -> Sequence[int]:
    """`total` as `parts` whole numbers that differ by at most one, the larger ones first."""
    return [total // parts + (i < total % parts) for i in range(parts)]


def _draw_key(seed: int, fact: str) -> bytes:
    return sha256(f"draw\x1f{seed}\x1f{fact}".encode()).digest()
