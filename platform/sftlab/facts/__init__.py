"""Facts: tables, topics with their templates, buckets of mastery, training sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sftlab.lazy import lazily

if TYPE_CHECKING:
    from sftlab.facts.mastery import bucket_of, contains_answer
    from sftlab.facts.table import facts_table, read_facts
    from sftlab.facts.templates import Topic, load_topics
    from sftlab.facts.training_sets import DrawRule, draw_training_set

__all__ = [
    "DrawRule",
    "Topic",
    "bucket_of",
    "contains_answer",
    "draw_training_set",
    "facts_table",
    "load_topics",
    "read_facts",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "mastery": ["bucket_of", "contains_answer"],
        "table": ["facts_table", "read_facts"],
        "templates": ["Topic", "load_topics"],
        "training_sets": ["DrawRule", "draw_training_set"],
    },
)
