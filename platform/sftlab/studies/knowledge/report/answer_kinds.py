"""Kinds of answers along the ladders: right, another entity of the topic, no answer, and everything else."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from sftlab.analysis.answer_kinds import KINDS, WRONG, Kinds, together
from sftlab.reporting.section import Section, present
from sftlab.reporting.table import NOTHING, Entry, Row, Table
from sftlab.reporting.text import percent, restored
from sftlab.studies.knowledge.report.buckets import bucket_name
from sftlab.studies.knowledge.report.figures import LadderBlocks, ladder_blocks
from sftlab.studies.knowledge.report.lookup import DOMAINS, TEST, Group, VariantView
from sftlab.studies.knowledge.report.view import View
from sftlab.studies.knowledge.results.answer_rows import AnswerKindRow
from sftlab.studies.knowledge.results.rows import BASE

NAMES = {
    "right": "right",
    "other_entity": "another entity",
    "no_answer": "no answer",
    "malformed": "other text",
}
COLOURS = {"right": "#0072B2", "other_entity": "#E69F00", "no_answer": "#999999", "malformed": "#D55E00"}
ALL = (0, 1, 2, 3, 4)
WORDS = (
    "Right: the answer holds an accepted name. Another entity: the whole answer is the answer of another fact of the "
    "topic. No answer: no letter or digit, or the question could not be asked. Other text: everything else. Texts are "
    "compared without case, punctuation and articles."
)


def section(view: View) -> Section | None:
    """The section of the main variant; None where no answer of its models was classified."""
    main = view.main
    if main is None or not main.variant.answer_kinds or not main.sizes:
        return None
    size = main.sizes[-1]
    return Section(
        "answers",
        "What wrong answers look like",
        _words(main, size),
        present(figure(main, size)),
        present(by_group(main), by_bucket(main, size), along_ladder(main, size)),
        data=("answer_kinds",),
    )


def shown_rows(view: VariantView) -> list[AnswerKindRow]:
    """The rows of the base model, and of every group at 0 % and at the percentage that the fates are shown at."""
    return [row for row in view.variant.answer_kinds if view.shows(row.cell, row.percent)]


def by_group(view: VariantView) -> Table | None:
    """Shares of the in-domain and out-of-domain answers by kind, of the base model and of every group."""
    rows = []
    base = [_shares(found) for split in DOMAINS for found in [_base(view, split, ALL)]]
    if any(entry is not NOTHING for entries in base for entry in entries):
        rows.append(Row("base model, not tuned", [entry for entries in base for entry in entries]))
    for size in view.sizes:
        rows.append(Row(f"{size:,} training facts"))
        for group in view.groups_of(size):
            for at in _steps(view, group):
                entries = [
                    entry for split in DOMAINS for entry in _shares(_kinds(view, [group], at, split, ALL))
                ]
                name = "tuned" if not at else f"{restored(at)} restored"
                rows.append(Row(f"{bucket_name(group.train_bucket)}, {name}", entries))
    return Table(
        "Answers to test questions by kind",
        "trained on",
        list(NAMES.values()) * len(DOMAINS),
        rows,
        [(name, len(KINDS)) for name in DOMAINS.values()],
        note=f"{WORDS} All training sets of a group together. The percentage is the one chosen on dev, or the one next "
        "to 20 % where dev chose to restore nothing.",
    )


def by_bucket(view: VariantView, size: int) -> Table | None:
    """Shares of the in-domain answers by kind and bucket of the facts: of the base, tuned and restored models."""
    groups = view.groups_of(size)
    rows = []
    for bucket in ALL:
        models = {
            "base model": _base(view, TEST, (bucket,)),
            "tuned": _kinds(view, groups, 0.0, TEST, (bucket,)),
            "restored": together(
                [_kinds(view, [g], view.shown_percents[g], TEST, (bucket,)) for g in groups]
            ),
        }
        found = [Row(name, _counted(kinds)) for name, kinds in models.items() if kinds.answers]
        rows += [Row(f"facts of bucket {bucket}"), *found] if found else []
    if not rows:
        return None
    return Table(
        f"Answers by kind and bucket of the fact, in domain, all models of {size:,} training facts",
        "model",
        ["answers", *NAMES.values()],
        rows,
        note="Restored: every group at its percentage of the table above.",
    )


def along_ladder(view: VariantView, size: int) -> Table | None:
    """Shares of the in-domain answers by kind at every percentage, all models of one size together."""
    groups = view.groups_of(size)
    rows = []
    for group in groups:
        found = [
            Row(restored(at), _counted(kinds))
            for at in _percents(view)
            if (kinds := _kinds(view, [group], at, TEST, ALL)).answers
        ]
        rows += [Row(bucket_name(group.train_bucket)), *found] if found else []
    if not rows:
        return None
    return Table(
        f"Answers by kind along the ladder, in domain, {size:,} training facts",
        "restored",
        ["answers", *NAMES.values()],
        rows,
        folded="Along the ladder",
    )


def figure(view: VariantView, size: int) -> str | None:
    """Stacked bars of the kinds of in-domain answers: a block a group of training sets, a bar a percentage."""
    groups = view.groups_of(size)
    steps = _percents(view)
    bars = {
        (number, place): found
        for number, group in enumerate(groups)
        for place, at in enumerate(steps)
        if (found := _kinds(view, [group], at, TEST, ALL)).answers
    }
    if not bars:
        return None
    shares = {
        NAMES[name]: (colour, [getattr(found, name) / found.answers for found in bars.values()])
        for name, colour in COLOURS.items()
    }
    blocks = LadderBlocks([bucket_name(group.train_bucket) for group in groups], steps, list(bars), shares)
    return ladder_blocks(
        blocks, f"{view.prefix}answers", f"Answers in domain by kind, {size:,} training facts", tick_size=6.5
    )


def _words(view: VariantView, size: int) -> str:
    groups = view.groups_of(size)
    tuned = _kinds(view, groups, 0.0, TEST, ALL)
    if not tuned.wrong:
        return "No in-domain answer of the tuned models is wrong."
    wrong = percent(tuned.wrong / tuned.answers)
    text = f"In domain, {wrong} of the answers after tuning on {size:,} facts are wrong. Of these, {_of_wrong(tuned)}."
    base = _base(view, TEST, ALL)
    return f"{text} Of the base model's wrong answers, {_of_wrong(base)}." if base.wrong else text


def _of_wrong(kinds: Kinds) -> str:
    entity, empty, other = (percent(getattr(kinds, name) / kinds.wrong) for name in WRONG)
    return f"{entity} are another entity of the topic, {empty} are empty, and {other} are other text"


def _percents(view: VariantView) -> list[float]:
    return sorted({row.percent for row in view.variant.answer_kinds if row.percent is not None})


def _steps(view: VariantView, group: Group) -> Iterable[float]:
    at = view.shown_percents[group]
    return (0.0,) if at is None else (0.0, at)


def _shares(kinds: Kinds) -> list[Entry]:
    if not kinds.answers:
        return [NOTHING] * len(KINDS)
    return [Entry(percent(number / kinds.answers)) for number in kinds]


def _counted(kinds: Kinds) -> list[Entry]:
    return [Entry(f"{kinds.answers:,}"), *_shares(kinds)]


def _base(view: VariantView, split: str, buckets: Collection[int]) -> Kinds:
    return _sum(view, [(BASE, None, split, bucket) for bucket in buckets])


def _kinds(
    view: VariantView, groups: Sequence[Group], at: float | None, split: str, buckets: Collection[int]
) -> Kinds:
    """The kinds of the answers of all models of the groups at one percentage."""
    cells = [cell.cell for group in groups for cell in view.groups[group]]
    return _sum(view, [(cell, at, split, bucket) for cell in cells if at is not None for bucket in buckets])


def _sum(view: VariantView, keys: Iterable[tuple[str, float | None, str, int]]) -> Kinds:
    return together([view.answer_kinds[key] for key in keys if key in view.answer_kinds])
