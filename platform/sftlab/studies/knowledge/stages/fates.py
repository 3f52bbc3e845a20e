"""What becomes of each test and training fact along a ladder, counted by topic and bucket."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sftlab.analysis.fates import fates_by
from sftlab.errors import UserError
from sftlab.studies.knowledge.build import KnowledgeBuild
from sftlab.studies.knowledge.results.rows import FateRow
from sftlab.studies.knowledge.stages.evaluation import TRAIN_SET
from sftlab.studies.knowledge.stages.mastery import read_mastery

if TYPE_CHECKING:
    import pyarrow as pa

FATE_SPLITS = ("test", "test_ood", TRAIN_SET)

Keys = Mapping[str, Mapping[str, tuple[str, int]]]


def fate_keys(build: KnowledgeBuild) -> Keys:
    """Topic and bucket by fact id, of each of FATE_SPLITS; facts without a bucket have none."""
    keys: dict[str, dict[str, tuple[str, int]]] = {}
    for split in FATE_SPLITS:
        table = read_mastery(
            build, "train" if split == TRAIN_SET else split, ["fact_id", "topic", "bucket"]
        ).to_pydict()
        rows = zip(table["fact_id"], table["topic"], table["bucket"], strict=True)
        keys[split] = {fact: (topic, bucket) for fact, topic, bucket in rows if bucket is not None}
    return keys


def fate_rows(
    cell: str, percent: float, tuned: Mapping[str, pa.Table], restored: Mapping[str, pa.Table], keys: Keys
) -> list[FateRow]:
    """The rows of one restored model, by split, topic and bucket. A question that could not be asked is wrong.

    Raises UserError where the two models did not answer the same questions.
    """
    rows = []
    for split in FATE_SPLITS:
        if split not in tuned or split not in restored:
            continue
        facts = tuned[split]["fact_id"].to_pylist()
        if facts != restored[split]["fact_id"].to_pylist():
            raise UserError(
                f"the tuned and the restored model did not answer the same questions of {split}, so they "
                "cannot be compared",
                place=f"{cell}, {percent:g} %",
                advice="evaluate them again.",
            )
        before, after = (
            [correct is True for correct in answers[split]["correct"].to_pylist()]
            for answers in (tuned, restored)
        )
        found = fates_by(before, after, [keys[split].get(fact) for fact in facts])
        rows += [
            FateRow(cell, percent, split, topic, bucket, *fates)
            for (topic, bucket), fates in sorted(found.items())
        ]
    return rows
