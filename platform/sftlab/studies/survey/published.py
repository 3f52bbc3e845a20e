"""What Harada et al. (EMNLP 2025, arXiv 2506.14681) say about scores: claims, and statements with their values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from sftlab.config.frozen import Frozen
from sftlab.studies.survey.claims import Claim


class Paper(Frozen):
    title: str
    authors: str
    year: int
    arxiv: str
    table: str

    def __str__(self) -> str:
        return f"{self.authors} {self.year} (arXiv {self.arxiv})"


class Statement(Frozen):
    """A statement of the paper, whether a table of scores decides it, and its values recomputed from the released one.

    `values` are rounded; their keys say what they are. `why` says what is missing for a statement that scores do
    not decide.
    """

    id: str
    where: str
    says: str
    status: Literal["computed", "arithmetic", "not computable"]
    why: str = ""
    values: Mapping[str, Any] = {}


class Published(Frozen):
    """The package's data file on the paper."""

    paper: Paper
    definitions: Mapping[str, str]
    claims: tuple[Claim, ...]
    statements: tuple[Statement, ...]

    def statement(self, id: str) -> Statement:
        return next(one for one in self.statements if one.id == id)


@cache
def massive_sft() -> Published:
    """The claims and statements of the paper; short wording of this package, not sentences of the paper."""
    text = files("sftlab.studies.survey").joinpath("data/massive_sft.json").read_text(encoding="utf-8")
    return Published.model_validate(json.loads(text))
