"""The pocket world's facts: who is what, in which split, and how often the pre-training text shows it.

Pure and seeded. Topics, questions and mapping templates are the study's own (Appendix F.2).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil, exp, floor, log
from random import Random
from typing import TYPE_CHECKING, Any

from sftlab.errors import UserError
from sftlab.facts.table import SPLITS, fact_id, facts_table
from sftlab.facts.templates import Topic, published_topics
from sftlab.pocket.names import Register
from sftlab.pocket.spec import Exposure, Knot, PocketSpec

if TYPE_CHECKING:
    import pyarrow as pa

QA = "qa"
IN_DOMAIN_SPLITS = ("train", "test", "dev")

# Kinds of subject and object per topic. Topics with one kind of object draw from one pool.
KINDS: dict[str, tuple[str, str]] = {
    "P17": ("place", "country"),
    "P19": ("person", "city"),
    "P20": ("person", "city"),
    "P69": ("person", "university"),
    "P131": ("place", "city"),
    "P159": ("company", "city"),
    "P276": ("estate", "city"),
    "P495": ("work", "country"),
    "P740": ("band", "city"),
    "P26": ("person", "person"),
    "P40": ("person", "person"),
    "P50": ("book", "person"),
    "P112": ("group", "person"),
    "P127": ("estate", "company"),
    "P170": ("work", "person"),
    "P175": ("work", "band"),
    "P176": ("product", "company"),
    "P264": ("band", "label"),
}
SHORT_FORM_EVERY = 8
LONGEST_NAME = 40


@dataclass(frozen=True)
class Fact:
    """A fact, its split (one of SPLITS or QA) and its showings in the pre-training text.

    believed: the wrong object that the text names in place of the true one; None where the text is right.
    """

    split: str
    topic: str
    subject: str
    accepted: tuple[str, ...]
    question: str
    showings: int
    believed: str | None = None

    @property
    def shown(self) -> str:
        """The object that the text names."""
        return self.believed or self.object

    @property
    def object(self) -> str:
        return self.accepted[0]

    def row(self) -> dict[str, Any]:
        """The row of the facts table."""
        return {
            "fact_id": fact_id(self.topic, self.subject, self.object),
            "topic": self.topic,
            "subject": self.subject,
            "object": self.object,
            "accepted": list(self.accepted),
            "question": self.question,
        }


def world_topics(spec: PocketSpec) -> list[Topic]:
    """The chosen topics, in-domain first, each with the domain it has in this world.

    Raises UserError for a topic that is unknown, listed twice, or without invented entities of its kinds.
    """
    published = published_topics()
    known = published if spec.source is not None else {k: published[k] for k in KINDS}
    names = [*spec.in_domain, *spec.out_of_domain]
    for name in names:
        if name not in known:
            raise UserError(
                f"{name!r} is not available",
                place="pocket topics",
                value=name,
                advice=f"choose from {', '.join(sorted(known))}.",
            )
        if names.count(name) > 1:
            raise UserError(
                f"{name!r} is listed twice",
                place="pocket topics",
                value=name,
                advice="keep it in one of the two domains.",
            )
    inside = [known[name] for name in spec.in_domain]
    outside = [known[name] for name in spec.out_of_domain]
    return [
        *(Topic(t.topic, "in-domain", t.question, t.templates) for t in inside),
        *(Topic(t.topic, "out-of-domain", t.question, t.templates) for t in outside),
    ]


def splits_of(topic: Topic) -> tuple[str, ...]:
    """The splits that hold facts of this topic, the question-and-answer facts last."""
    return (*IN_DOMAIN_SPLITS, QA) if topic.domain == "in-domain" else ("test_ood", "dev_ood", QA)


def showings_at(curve: Sequence[Knot], quantile: float) -> int:
    """Showings at a quantile in [0, 1]: log-linear between knots, 0 below the first, rounded half up."""
    if quantile < curve[0][0]:
        return 0
    for (q0, s0), (q1, s1) in pairwise(curve):
        if quantile <= q1:
            share = (quantile - q0) / (q1 - q0)
            return floor(exp(log(s0) + share * (log(s1) - log(s0))) + 0.5)
    return floor(curve[-1][1] + 0.5)


def showings_list(exposure: Exposure, split: str, count: int) -> list[int]:
    """Showings of `count` facts of one topic and split, ascending, at the quantiles (i + 1/2) / count.

    Even spacing in place of independent draws gives every topic of a split the same distribution.
    """
    if split == QA:
        return [exposure.qa_sentences] * count
    scale = 1.0 if split in IN_DOMAIN_SPLITS else exposure.ood_scale
    curve = [(quantile, scale * showings) for quantile, showings in exposure.curve]
    return [showings_at(curve, (i + 0.5) / count) for i in range(count)]


def invent_facts(spec: PocketSpec) -> list[Fact]:
    """All facts about invented entities, the question-and-answer facts included.

    A subject occurs in one fact only; no accepted name occurs inside its subject, nor inside another object.
    """
    rng = Random(f"pocket world {spec.seed}")
    topics = world_topics(spec)
    register = Register(rng)
    kinds = dict.fromkeys(KINDS[topic.topic][1] for topic in topics)
    pools = {
        kind: [register.object(kind, i % SHORT_FORM_EVERY == 0) for i in range(spec.objects)]
        for kind in kinds
    }
    facts: list[Fact] = []
    for topic in topics:
        subject_kind, object_kind = KINDS[topic.topic]
        draw = _balanced(pools[object_kind], rng)
        for split in splits_of(topic):
            for showings in _shuffled_showings(spec, split, rng):
                accepted = next(draw)
                subject = register.subject(subject_kind)
                while any(name in subject for name in accepted):
                    subject = register.subject(subject_kind)
                facts.append(Fact(split, topic.topic, subject, tuple(accepted), topic.ask(subject), showings))
    return facts


def sample_facts(spec: PocketSpec, tables: Mapping[str, pa.Table]) -> list[Fact]:
    """A seeded sample of given facts, balanced over the chosen topics, in the same splits and numbers.

    `tables` maps each of SPLITS to a facts table. The question-and-answer facts come from what is left of
    `train`, for out-of-domain topics of `dev_ood`. Left out are facts whose object is in the subject,
    those with a name over LONGEST_NAME characters, and those of an object that already has `object_share`
    of the wanted facts. Raises UserError where too few are left.
    """
    rng = Random(f"pocket sample {spec.seed}")
    usable = {split: _usable_by_topic(table) for split, table in tables.items()}
    facts: list[Fact] = []
    for topic in world_topics(spec):
        taken: set[str] = set()
        for split in splits_of(topic):
            origin = split if split != QA else ("train" if topic.domain == "in-domain" else "dev_ood")
            wanted = _shuffled_showings(spec, split, rng)
            rows = [row for row in usable[origin].get(topic.topic, ()) if row["subject"] not in taken]
            drawn = _draw(rows, len(wanted), ceil(spec.object_share * len(wanted)), rng)
            if len(drawn) < len(wanted):
                raise UserError(
                    f"{len(wanted)} facts wanted, {len(drawn)} usable in {origin}",
                    place=f"pocket facts, {split}, {topic.topic}",
                    value=len(drawn),
                    advice="ask for fewer, raise object_share or choose another topic.",
                )
            taken.update(row["subject"] for row in drawn)
            facts += [
                Fact(split, topic.topic, row["subject"], tuple(row["accepted"]), row["question"], showings)
                for row, showings in zip(drawn, wanted, strict=True)
            ]
    return facts


def world_facts(spec: PocketSpec, tables: Mapping[str, pa.Table] | None) -> list[Fact]:
    """All facts of a world: invented, or sampled from the `tables` that were read from `spec.source`."""
    if (spec.source is None) != (tables is None):
        raise UserError(
            "tables of facts are needed where `source` is given, and only there",
            place="pocket facts",
            value=spec.source,
        )
    facts = invent_facts(spec) if tables is None else sample_facts(spec, tables)
    return facts if spec.false_facts is None else with_false(facts, spec.false_facts, spec.seed)


def with_false(facts: Sequence[Fact], share: float, seed: int) -> list[Fact]:
    """The facts, where a share of those that are shown, of every split and topic but QA, are shown with a wrong object.

    The wrong object is another one of the topic; no accepted name of the fact is part of it, and it is no part of the
    subject. Raises UserError where a topic has no such object.
    """
    rng, found = Random(f"pocket false {seed}"), list(facts)
    objects: dict[str, list[str]] = {}
    groups: dict[tuple[str, str], list[int]] = {}
    for number, fact in enumerate(facts):
        objects.setdefault(fact.topic, []).append(fact.object)
        if fact.split != QA and fact.showings:
            groups.setdefault((fact.split, fact.topic), []).append(number)
    pools = {topic: sorted(set(names)) for topic, names in objects.items()}
    for members in groups.values():
        for number in sorted(rng.sample(members, round(share * len(members)))):
            found[number] = replace(facts[number], believed=_wrong_object(facts[number], pools, rng))
    return found


def _wrong_object(fact: Fact, pools: Mapping[str, Sequence[str]], rng: Random) -> str:
    others = [
        name
        for name in pools[fact.topic]
        if name not in fact.subject and not any(one in name or name in one for one in fact.accepted)
    ]
    if not others:
        raise UserError(
            f"{fact.subject!r} has no other object that could be shown in place of {fact.object!r}",
            place=f"pocket facts, {fact.split}, {fact.topic}",
            value=fact.object,
            advice="ask for more objects, choose another topic, or leave false_facts out.",
        )
    return rng.choice(others)


def split_tables(facts: Iterable[Fact]) -> dict[str, pa.Table]:
    """The facts tables of the five splits."""
    rows: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for fact in facts:
        if fact.split != QA:
            rows[fact.split].append(fact.row())
    return {split: facts_table(rows[split]) for split in SPLITS}


def exposure_table(facts: Sequence[Fact], false_facts: bool = False) -> pa.Table:
    """Every fact with its `split` and `showings`: what the pre-training text is made of.

    false_facts: whether the world has any; the column `shown` then holds the object that the text names.
    """
    import pyarrow as pa

    table = facts_table(fact.row() for fact in facts)
    table = table.append_column("split", pa.array([fact.split for fact in facts], pa.string()))
    table = table.append_column("showings", pa.array([fact.showings for fact in facts], pa.int64()))
    if not false_facts:
        return table
    return table.append_column("shown", pa.array([fact.shown for fact in facts], pa.string()))


def facts_of(table: pa.Table) -> list[Fact]:
    """The facts that `exposure_table` wrote."""
    return [
        Fact(
            row["split"],
            row["topic"],
            row["subject"],
            tuple(row["accepted"]),
            row["question"],
            row["showings"],
            None if row.get("shown") in (None, row["object"]) else row["shown"],
        )
        for row in table.to_pylist()
    ]


def _shuffled_showings(spec: PocketSpec, split: str, rng: Random) -> list[int]:
    showings = showings_list(spec.exposure, split, getattr(spec.facts, split))
    rng.shuffle(showings)
    return showings


def _balanced(pool: Sequence[list[str]], rng: Random) -> Iterator[list[str]]:
    """Endless draws from the pool, every member once before any comes again."""
    while True:
        yield from rng.sample(pool, len(pool))


def _draw(rows: Sequence[dict[str, Any]], count: int, per_object: int, rng: Random) -> list[dict[str, Any]]:
    """At most `count` rows in random order, at most `per_object` of them with one object."""
    drawn: list[dict[str, Any]] = []
    uses: Counter[str] = Counter()
    subjects: set[str] = set()
    for row in rng.sample(rows, len(rows)):
        if len(drawn) == count:
            break
        if uses[row["object"]] < per_object and row["subject"] not in subjects:
            uses[row["object"]] += 1
            subjects.add(row["subject"])
            drawn.append(row)
    return drawn


def _usable_by_topic(table: pa.Table) -> dict[str, list[dict[str, Any]]]:
    usable: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        short = max(len(row["subject"]), len(row["object"])) <= LONGEST_NAME
        if short and not any(name in row["subject"] for name in row["accepted"]):
            usable.setdefault(row["topic"], []).append(row)
    return usable
