"""How large a pocket world is before it is made, for plans."""

from __future__ import annotations

from sftlab.pocket.spec import PocketSpec
from sftlab.pocket.world import IN_DOMAIN_SPLITS, showings_list

TOKENS_PER_DOCUMENT = 14  # one showing with its two special tokens, measured on the default world
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


def document_count(spec: PocketSpec) -> int:
    """Documents of the pre-training text, exactly."""
    exposure = spec.exposure
    shown = 0
    for split, count in fact_counts(spec).items():
        topics = len(spec.in_domain if split in IN_DOMAIN_SPLITS else spec.out_of_domain)
        shown += topics * sum(showings_list(exposure, split, count // topics))
    about = exposure.qa_sentences + exposure.qa_questions + exposure.qa_unanswered
    return shown + about * spec.facts.qa * (len(spec.in_domain) + len(spec.out_of_domain))


def training_tokens(spec: PocketSpec) -> int:
    """Tokens of the pre-training text, estimated from the number of documents."""
    return document_count(spec) * TOKENS_PER_DOCUMENT


def model_bytes(spec: PocketSpec) -> int:
    """Bytes of the model's weights: float32, untied embeddings, an upper bound on the vocabulary."""
    shape = spec.shape
    layer = 4 * shape.hidden**2 + 3 * shape.hidden * shape.intermediate + 2 * shape.hidden
    weights = shape.layers * layer + 2 * shape.vocabulary * shape.hidden + shape.hidden
    return weights * FLOAT32_BYTES
