"""The files outside the store that a study reads, by the stages that read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sftlab.errors import UserError
from sftlab.store.outside import MISSING, Found, Outside


@dataclass(frozen=True)
class OutsideFiles:
    """What was found of the files that a study names when it was planned.

    by_stage: by the name of a stage, the files and folders that it reads, `missing:PATH` where there is none.
    hints: by a part of a path, how such a file is obtained.
    """

    by_stage: Mapping[str, Sequence[Found]] = field(default_factory=dict)
    hints: Mapping[str, str] = field(default_factory=dict)

    def missing(self) -> list[str]:
        """The files and folders that do not exist, each once."""
        found = [one for read in self.by_stage.values() for one in read]
        return list(dict.fromkeys(one.removeprefix(MISSING) for one in found if isinstance(one, str)))

    def require(self) -> None:
        """Raises UserError where a file that the study reads does not exist."""
        for path in self.missing():
            hints = "".join(f"; {hint}" for part, hint in self.hints.items() if part in path)
            raise UserError(
                f"not found{hints}",
                place=path,
                advice="correct the path in the study's file, whose folder it is relative to, or by --set.",
            )

    def require_unchanged(self, stage: str) -> None:
        """Raises UserError where a file that this stage reads is another than the study was planned with.

        A result made from it would carry the id of the old content.
        """
        for found in self.by_stage.get(stage, ()):
            if isinstance(found, Outside) and not found.is_unchanged():
                raise UserError(
                    f"has changed since the study was planned, so that what was made of it is not kept (stage {stage})",
                    place=found.path,
                    expected="the same content until the end",
                    advice="run again to plan with the new one.",
                )
