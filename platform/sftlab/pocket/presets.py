"""Ready-made pocket worlds: the embedded default, and a tiny one for tests."""

from __future__ import annotations

from sftlab.pocket.spec import Exposure, FactCounts, Optimisation, PocketSpec, Shape

POCKET = PocketSpec()

TINY = PocketSpec(
    in_domain=("P17", "P19"),
    out_of_domain=("P50", "P264"),
    facts=FactCounts(train=20, test=8, test_ood=8, dev=6, dev_ood=6, qa=4),
    objects=24,
    exposure=Exposure(
        curve=((0.25, 10.0), (0.45, 40.0), (0.6, 120.0), (1.0, 300.0)), qa_sentences=20, qa_questions=20
    ),
    shape=Shape(hidden=64, layers=2, heads=2, intermediate=128, vocabulary=1024, sequence=64),
    optimisation=Optimisation(sequences=4, learning_rate=5e-3),
)
