"""What results of a pocket model cannot show."""

from __future__ import annotations

from sftlab.studies.knowledge.results.tables import Results

POCKET_CAVEAT = (
    "The pocket world is a demonstration. Its text and its learning rate were chosen while the paper's effects were "
    "looked at, the rate by test accuracy among four; later, dev chose the same rate over both sizes of the pocket "
    "study, and a lower one for the larger size alone. So an agreement with the paper is partly built in, above all "
    "that restoring helps and that restoring too much fails. A disagreement, and the comparison of restoration "
    "orders, are not built in."
)


def caveat_of(results: Results) -> str:
    """What a study or sweep of a pocket model cannot show; nothing for other models."""
    study = results.spec.get("study", results.spec)
    return POCKET_CAVEAT if study.get("pocket") else ""
