"""The table of families says what each family's stages found."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from benchmarks.family_path import FAMILIES, row_of

SAME: dict[str, Any] = {"lost": [], "same": True, "reference": [[0.0]]}


@pytest.mark.parametrize(
    ("prepared", "swapped", "fresh", "result", "detail"),
    [
        (
            {"refused": "m: no such\nfamily"},
            None,
            None,
            "refused before anything is computed",
            "m: no such family",
        ),
        ({"failed": "IndexError"}, None, None, "fails", "IndexError"),
        (SAME, {"off": 1e-5}, None, "works", "swapped; logits agree within 1e-05"),
        (SAME, {"off": 0.5}, None, "fails", "swapped; logits agree within 5e-01"),
        (SAME | {"same": False}, {"off": 0.0}, None, "fails", "swapped; .*; config or names differ"),
        (SAME, {"swap": "experts | 3d"}, {"off": 1e-6}, "fresh engine", "experts / 3d"),
        (SAME, {"failed": "died"}, {"failed": "died again"}, "fails", "died again"),
        (SAME, {"swap": "x"}, {"off": 1.0}, "fails", r"logits differ by 1e\+00"),
    ],
)
def test_a_row_follows_from_what_the_stages_found(
    tmp_path: Path, prepared: Any, swapped: Any, fresh: Any, result: str, detail: str
) -> None:
    folder = tmp_path / "gpt2-bytes"
    folder.mkdir()
    for name, found in (("prepared", prepared), ("swapped", swapped), ("fresh", fresh)):
        if found is not None:
            (folder / f"{name}.json").write_text(json.dumps(found))
    row = row_of("gpt2", "bytes", tmp_path)
    assert row[:3] == ("gpt2", "bytes", result)
    assert re.fullmatch(detail, row[3])


def test_the_families_are_those_that_transformers_names() -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    assert FAMILIES.keys() <= MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys()
