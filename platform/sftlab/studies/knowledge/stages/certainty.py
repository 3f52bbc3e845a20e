"""How sure the mastery of the facts of a study is: by fact, and on the mean by split, topic and bucket."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sftlab.analysis.certainty import Certainty, certainty
from sftlab.facts.table import SPLITS
from sftlab.studies.knowledge.build import KnowledgeBuild
from sftlab.studies.knowledge.results.rows import CertaintyRow
from sftlab.studies.knowledge.stages.mastery import FILE, read_mastery_file

if TYPE_CHECKING:
    import pyarrow as pa

SURE = 0.9  # from this probability of its bucket on a fact counts as sure


def probabilities(mastery: pa.Table) -> dict[str, float]:
    """Probability of its bucket by fact id, of the scored facts of a mastery table."""
    return {
        fact: float(value)
        for rows, found in _by_templates(mastery)
        for fact, value in zip(rows["fact_id"].to_pylist(), found.probability, strict=True)
    }


def certainty_rows(build: KnowledgeBuild) -> list[CertaintyRow]:
    """The mean certainty of the scored facts by split, topic and bucket."""
    return list(_rows(build.read(build.plan.mastery, FILE)))


@lru_cache(maxsize=4)
def _rows(file: Path) -> tuple[CertaintyRow, ...]:
    """Computed once for all variants of a sweep; a committed file never changes."""
    sums: dict[tuple[str, str, int], list[np.ndarray]] = defaultdict(list)
    for table, found in _by_templates(read_mastery_file(file)):
        half = (found.high - found.low) / 2
        columns = np.stack([half, found.probability, found.redraw, found.probability >= SURE], axis=1)
        keys = (table[name].to_pylist() for name in ("split", "topic", "bucket"))
        for key, values in zip(zip(*keys, strict=True), columns, strict=True):
            sums[key].append(values)
    order = sorted(sums, key=lambda key: (SPLITS.index(key[0]), *key[1:]))
    return tuple(CertaintyRow(*key, len(sums[key]), *np.mean(sums[key], axis=0).tolist()) for key in order)


def _by_templates(mastery: pa.Table) -> Iterator[tuple[pa.Table, Certainty]]:
    """The scored facts with their certainty, those with one number of templates and samples at a time."""
    import pyarrow.compute as pc

    scored = mastery.filter(pc.is_valid(mastery["hits"]))
    templates = pc.list_value_length(scored["hits"])
    kinds = sorted(set(zip(templates.to_pylist(), scored["samples"].to_pylist(), strict=True)))
    for number, samples in kinds:
        rows = scored.filter(pc.and_(pc.equal(templates, number), pc.equal(scored["samples"], samples)))
        hits = pc.list_flatten(rows["hits"]).to_numpy().reshape(-1, number)
        yield rows, certainty(hits, samples)
