"""How large a pocket world is before it is made, for plans."""

from __future__ import annotations

from sftlab.pocket.spec import PocketSpec
from sftlab.pocket.world import showings_at

TOKENS_PER_SHOWING = 14  # a filled mapping template with its object, measured on the default world
FLOAT32_BYTES = 4


def fact_counts(spec: PocketSpec) -> dict[str, int]:
    """Facts by split."""
    inside, outside = len(spec.in_domain), len(spec.out_of_domain)
    facts = spec.facts
    return {
        "train": facts.train * inside,
        "test": facts.test * inside,
        "test_ood": facts.test_ood * outside,
        "dev": facts.dev * inside,
        "dev_ood": facts.dev_ood * outside,
    }


def training_tokens(spec: PocketSpec) -> int:
    """Tokens of the pre-training text, estimated from the mean number of showings."""
    mean = sum(showings_at(spec.exposure.curve, (i + 0.5) / 100) for i in range(100)) / 100
    about = (spec.exposure.qa_sentences + spec.exposure.qa_questions) * spec.facts.qa
    topics = len(spec.in_domain) + len(spec.out_of_domain)
    return round((mean * sum(fact_counts(spec).values()) + about * topics) * TOKENS_PER_SHOWING)


def model_bytes(spec: PocketSpec) -> int:
    """Bytes of the model's weights: float32, untied embeddings, an upper bound on the vocabulary."""
    shape = spec.shape
    layer = 4 * shape.hidden**2 + 3 * shape.hidden * shape.intermediate + 2 * shape.hidden
    weights = shape.layers * layer + 2 * shape.vocabulary * shape.hidden + shape.hidden
    return weights * FLOAT32_BYTES
