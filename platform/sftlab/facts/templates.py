"""Topics: one relation each, with its question and its mapping templates (paper, Appendix F.2)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from sftlab.config.documents import load_yaml, parse_json, unknown_hint
from sftlab.errors import Place, UserError
from sftlab.facts.nearest import most_alike
from sftlab.facts.table import TOPICS_FILE

SUBJECT = "{subject}"
Domain = Literal["in-domain", "out-of-domain"]
NEAREST = 3  # topics that an error names
DOMAINS: tuple[Domain, Domain] = ("in-domain", "out-of-domain")
FIELDS = ("topic", "domain", "question", "templates")
TABLE = "table"  # of the packaged file alone: the paper's number of a topic's table; not read


@dataclass(frozen=True)
class Topic:
    """One relation: `question` and every one of `templates` holds `{subject}` exactly once."""

    topic: str
    domain: Domain
    question: str
    templates: tuple[str, ...]

    def ask(self, subject: str) -> str:
        return self.question.replace(SUBJECT, subject)

    def fill(self, subject: str) -> list[str]:
        """The mapping templates with the subject put in, in their published order."""
        return [template.replace(SUBJECT, subject) for template in self.templates]

    def subject_of(self, question: str) -> str | None:
        """The subject asked for, or None where the question is not of this topic's wording."""
        head, tail = self.question.split(SUBJECT)
        if len(question) <= len(head) + len(tail):
            return None
        if not (question.startswith(head) and question.endswith(tail)):
            return None
        return question[len(head) : len(question) - len(tail)]


def published_topics() -> dict[str, Topic]:
    """The 24 topics of the study (10 in-domain, 14 out-of-domain), 21 mapping templates each."""
    text = files("sftlab.facts").joinpath("data/mapping_templates.json").read_text(encoding="utf-8")
    return parse_topics(json.loads(text), "package data mapping_templates.json")


def study_topics(templates: Path | None, in_domain: Sequence[str] | None = None) -> dict[str, Topic]:
    """The topics of a file, or those published.

    in_domain: the topics that are in domain, in place of what the file says; all others are out of domain. Raises
    UserError for a topic that is not there, with the nearest ones.
    """
    topics = load_topics(templates) if templates else published_topics()
    if in_domain is None:
        return topics
    for name in in_domain:
        if name not in topics:
            near = ", ".join(most_alike(name, topics, NEAREST))
            raise UserError(
                f"there is no topic {name!r}",
                place="facts.in_domain",
                value=name,
                advice=f"the nearest of the {len(topics)} topics are {near}.",
            )
    return {
        name: replace(topic, domain=DOMAINS[0] if name in in_domain else DOMAINS[1])
        for name, topic in topics.items()
    }


def load_topics(path: Path) -> dict[str, Topic]:
    """Read topics from YAML or JSON: a list of {topic, domain, question, templates}.

    Raises UserError naming the file, the topic and the field.
    """
    return parse_topics(load_yaml(path, "give a YAML file of topics."), str(path))


def read_topics(folder: Path) -> dict[str, Topic]:
    """The topics of a facts folder, as `dump_topics` wrote them.

    `load_topics` would read them too, but YAML, which JSON is as well, takes a hundred times as long.
    """
    path = folder / TOPICS_FILE
    return parse_topics(parse_json(path.read_bytes(), str(path), "write the facts folder again."), str(path))


def parse_topics(rows: Any, source: str) -> dict[str, Topic]:
    """Check and index topics.

    Raises UserError where a key is missing or unknown, a topic or one of its templates repeats, or
    `{subject}` does not occur exactly once in a question or template.
    """
    if not isinstance(rows, list) or not rows:
        raise UserError(
            place=source,
            value=rows,
            expected="a list of topics, each with topic, domain, question, templates",
        )
    topics: dict[str, Topic] = {}
    for index, row in enumerate(rows):
        topic = _parse_topic(row, Place(source, index + 1, unit="topic"))
        if topic.topic in topics:
            raise UserError(
                f"topic {topic.topic!r} is listed twice",
                place=source,
                value=topic.topic,
                advice="keep one of them.",
            )
        topics[topic.topic] = topic
    return topics


def _parse_topic(row: Any, where: Place) -> Topic:
    if not isinstance(row, Mapping):
        raise UserError(
            place=where, value=row, expected="a mapping with topic, domain, question and templates"
        )
    for key in row:
        if key not in FIELDS and key != TABLE:
            raise UserError(
                f"unknown field {key!r}", place=where, value=key, advice=unknown_hint(key, FIELDS)
            )
    missing = {"topic", "question", "templates"} - row.keys()
    if missing:
        raise UserError(f"lacks {', '.join(sorted(missing))}", place=where)
    if not isinstance(row["topic"], str) or not row["topic"].strip():
        raise UserError(place=where.of("topic"), value=row["topic"], expected="a non-empty text")
    domain = row.get("domain", "in-domain")
    if domain not in DOMAINS:
        raise UserError(
            f"domain {domain!r} is neither {DOMAINS[0]!r} nor {DOMAINS[1]!r}", place=where, value=domain
        )
    templates = row["templates"]
    if not isinstance(templates, list) or not templates:
        raise UserError(
            f"({row['topic']}) has no templates", place=where, advice=f"list at least one with {SUBJECT}."
        )
    for field, text in [
        ("question", row["question"]),
        *((f"template {i + 1}", t) for i, t in enumerate(templates)),
    ]:
        if not isinstance(text, str) or text.count(SUBJECT) != 1:
            raise UserError(
                f"({row['topic']}) {text!r} must hold {SUBJECT} exactly once",
                place=where.of(field),
                value=text,
            )
    for i, text in enumerate(templates):
        if text in templates[:i]:
            raise UserError(
                f"({row['topic']}) {text!r} is listed twice",
                place=where.of(f"template {i + 1}"),
                value=text,
                advice="keep one of them.",
            )
    return Topic(row["topic"], domain, row["question"], tuple(templates))


def dump_topics(topics: Iterable[Topic]) -> str:
    """The topics as JSON text that `load_topics` reads back."""
    return json.dumps([asdict(t) for t in topics], ensure_ascii=False, indent=1) + "\n"
