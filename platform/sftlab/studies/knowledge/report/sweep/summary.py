"""The plain-words summary of a sweep: what to do, what that gains, how sure it is, and what was tried."""

from __future__ import annotations

from dataclasses import replace

from sftlab.analysis.statistics import BETTER, LEVEL, NO_DIFFERENCE, WORSE
from sftlab.reporting.finding import Finding
from sftlab.reporting.text import count, listed, number, percent, points
from sftlab.studies.knowledge.report.buckets import LADDERS, bucket_name, step_words
from sftlab.studies.knowledge.report.evidence import mean, pairs_of_sizes, unknown_and_others
from sftlab.studies.knowledge.report.findings import HELPS, MORE_DATA, UNKNOWN
from sftlab.studies.knowledge.report.lookup import DOMAINS, TEST
from sftlab.studies.knowledge.report.origin import Origin
from sftlab.studies.knowledge.report.summary import Figure, Summary
from sftlab.studies.knowledge.report.sweep.beside import difference_of
from sftlab.studies.knowledge.report.sweep.strategies import (
    interval_text,
    points_text,
    ranked,
    recommended_against,
)
from sftlab.studies.knowledge.report.sweep.view import SweepView, data_words, setting_words
from sftlab.studies.knowledge.report.ties import nothing_gained, sweep_tie, with_tie
from sftlab.studies.knowledge.results.sweep_tables import (
    BEST,
    CHOSEN,
    ComparisonRow,
    GroupRow,
    SweepChoiceRow,
    fullest,
)


def summarise(view: SweepView, origin: Origin | None = None) -> Summary:
    choice = view.recommended
    if choice is None:
        text = "Nothing can be recommended: this sweep has no accuracies on its dev splits."
        return Summary(studied(view), text, (), (), None)
    sentences = [
        chosen_how(view, choice),
        *(score_sentence(view, choice, split) for split in DOMAINS),
        *(against_own(view, choice, split) for split in DOMAINS),
        *(against_plain(view, split) for split in DOMAINS),
        others(view),
        incomplete(view),
        (origin or Origin()).how_to_get((choice.variant, _lowest_seed(view, choice), choice.percent)),
    ]
    return Summary(
        studied=studied(view),
        recommendation=recommendation(view, choice),
        sentences=tuple(sentence for sentence in sentences if sentence),
        figures=tuple(key_figures(view, choice)),
        table=recommended_against(view),
    )


def _lowest_seed(view: SweepView, choice: SweepChoiceRow) -> str:
    """The cell that represents the recommended group: that of the lowest seed."""
    cells = view.variants[choice.variant].results.cells
    mine = [cell for cell in cells if (cell.train_bucket, cell.size) == (choice.train_bucket, choice.size)]
    return min(mine, key=lambda cell: cell.set_seed).cell


def recommendation(view: SweepView, choice: SweepChoiceRow) -> str:
    """What to do, and in the same breath whether it is really better than plain fine-tuning."""
    settings = setting_words(view.variants[choice.variant])
    detail = f" ({settings})" if settings else ""
    tune = f"Fine-tune on {data_words(choice.train_bucket, choice.size)}"
    step = step_words(choice.strategy, choice.percent)
    plain = not step and (choice.variant == view.results.reference or choice.strategy in LADDERS)
    if plain:
        does = f"{tune}, and restore nothing."
    elif choice.strategy in LADDERS:
        does = f"{tune}, then {step}{detail}."
    else:
        does = f"{tune} by the strategy {choice.strategy}{detail}{f', then {step}' if step else ''}."
    ladder = _percents(view).get((choice.variant, choice.train_bucket, choice.size), set())
    gained = nothing_gained(choice, ladder)
    return with_tie(sweep_tie(view.results, choice), does, gained, _standing(view, plain))


def _standing(view: SweepView, is_plain: bool) -> str:
    """Whether test confirms it against the best plain fine-tuning."""
    if is_plain:
        return "No strategy had a better dev score than plain fine-tuning."
    found = [row for split in DOMAINS if (row := _plain_row(view, split))]
    if not found:
        return ""
    sure = [DOMAINS[row.split] for row in found if row.verdict == BETTER]
    worse = [DOMAINS[row.split] for row in found if row.verdict not in (BETTER, NO_DIFFERENCE)]
    rest = [DOMAINS[row.split] for row in found if row.verdict == NO_DIFFERENCE]
    if len(rest) == len(found):
        return "On test there is no significant difference from the best plain fine-tuning."
    parts = [f"better {listed(sure)}"] if sure else []
    parts += [f"worse {listed(worse)}"] if worse else []
    parts += [f"without a significant difference {listed(rest)}"] if rest else []
    return f"On test it is, against the best plain fine-tuning, {listed(parts)}."


def _plain_row(view: SweepView, split: str) -> ComparisonRow | None:
    """The recommended models against the best plain fine-tuning."""
    rows = [row for row in view.family(BEST) if row.split == split and view.is_plain(row)]
    return rows[-1] if rows else None


def chosen_how(view: SweepView, choice: SweepChoiceRow) -> str:
    groups, percents = fullest(view.choices("group")), _percents(view)
    models = sum(len(percents[row.variant, row.train_bucket, row.size]) for row in groups)
    tie = sweep_tie(view.results, choice)
    return (
        f"It was chosen on the dev questions alone, with {percent(choice.dev)} there "
        f"({view.metric.words}), {'one of the best' if tie else 'the best'} of {count(models, 'setting')} in "
        f"{count(len(groups), 'group')} of training sets. The test questions took no part in the choice."
        f"{f' {tie.names}' if tie else ''} {view.competing_rule}".rstrip()
    )


def _percents(view: SweepView) -> dict[tuple[str, str, int], set[float]]:
    found: dict[tuple[str, str, int], set[float]] = {}
    for row in view.results.groups:
        found.setdefault((row.variant, row.train_bucket, row.size), set()).add(row.percent)
    return found


def score_sentence(view: SweepView, choice: SweepChoiceRow, split: str) -> str:
    score = view.of_choice(choice, split)
    if score is None:
        return ""
    over = f" over {count(score.seeds, 'training set')}" if score.seeds > 1 else " from one training set"
    spread = f" (standard deviation {number(100 * score.sd)})" if score.sd is not None else ""
    return (
        f"{DOMAINS[split].capitalize()} it answers {percent(score.mean)} right, mean of the mastery buckets{over}"
        f"{spread}; 95 % interval {interval_text(score.low, score.high, 1)} %; {behind(score)}."
    )


def behind(score: GroupRow) -> str:
    """The number of questions of a score."""
    return f"{count(score.questions, 'question')} put to {count(score.seeds, 'model')}"


def against_own(view: SweepView, choice: SweepChoiceRow, split: str) -> str:
    """Against 0 % of the same training sets, where that is not the best plain fine-tuning."""
    row, plain = view.comparison(CHOSEN, choice, split), _plain_row(view, split)
    if row is None or (plain is not None and plain.gained == row.gained and plain.lost == row.lost):
        return ""
    return _difference(row, "the same models at 0 %")


def against_plain(view: SweepView, split: str) -> str:
    row = _plain_row(view, split)
    if row is None:
        return ""
    other = data_words(row.against_bucket, row.against_size)
    return _difference(row, f"the best plain fine-tuning ({other}, chosen on dev too)")


def _difference(row: ComparisonRow, other: str) -> str:
    # A small p alone is no verdict: the difference must hold over the training sets, too.
    though = "" if row.verdict != NO_DIFFERENCE or row.p_corrected >= LEVEL else ", but its interval holds 0"
    return (
        f"{DOMAINS[row.split].capitalize()}, against {other}: {points(row.difference)} points, "
        f"95 % interval {points_text(row)}: {row.verdict} ({p_text(row.p_corrected)} after correction{though}; "
        f"{row.gained:,} answers gained and {row.lost:,} lost on {count(row.questions, 'question')} "
        f"\N{MULTIPLICATION SIGN} {count(row.seeds, 'training set')})."
    )


def p_text(p: float) -> str:
    return "p < 0.0001" if p < 1e-4 else f"p = {number(p, 4 if p < 0.01 else 2)}"


def others(view: SweepView) -> str:
    """How close the other strategies come, as far as the test set shows."""
    plain = {_plain_row(view, split) for split in DOMAINS}
    rows = [row for row in view.family(BEST) if row not in plain]
    names = {row.against_variant: view.variants[row.against_variant].strategy for row in rows}
    beaten = [
        name
        for variant, name in names.items()
        if any(row.verdict == BETTER for row in rows if row.against_variant == variant)
    ]
    open_ = [name for name in dict.fromkeys(names.values()) if name not in beaten]
    if not names:
        return ""
    parts = []
    if open_:
        parts.append(f"it is not significantly better than {listed(open_)}")
    if beaten:
        parts.append(f"it is better than {listed(beaten)} in or out of domain")
    return f"Of the other strategies at their best, {listed(parts)}."


def incomplete(view: SweepView) -> str:
    """A warning where a score is not the mean of all five buckets."""
    splits = {
        row.split
        for variant in view.results.variants
        for row in variant.results.accuracy
        if row.empty_buckets and row.split != "train_set"
    }
    if not splits:
        return ""
    return (
        f"Careful: not every bucket has questions in {listed(sorted(splits))}. The scores there leave the "
        "empty ones out."
    )


def studied(view: SweepView) -> str:
    """What the sweep did, in numbers."""
    results = view.results
    strategies = list(dict.fromkeys(variant.strategy for variant in results.variants))
    groups = {(row.train_bucket, row.size) for v in results.variants for row in v.results.cells}
    seeds = {cell.set_seed for v in results.variants for cell in v.results.cells}
    models = {(r.variant, r.train_bucket, r.size, r.percent): r.seeds for r in results.groups}
    sizes = sorted({size for _, size in groups})
    text = (
        f"This sweep asks how to fine-tune a base model, {results.model}, so that it keeps what it knows. It has "
        f"{count(len(results.variants), 'variant')} of {count(len(strategies), 'strategy', 'strategies')}"
    )
    if groups:
        plain = [bucket for bucket in view.train_buckets if bucket.isdecimal()]
        kinds = [f"{'buckets' if len(plain) > 1 else 'bucket'} {listed(plain)}"] if plain else []
        mixed = [bucket for bucket in view.train_buckets if bucket not in plain]
        kinds += [bucket_name(bucket) for bucket in mixed] if len(mixed) < 4 else [f"{len(mixed)} mixtures"]
        text += (
            f", trained on {', and '.join(kinds)} with "
            f"{listed([f'{size:,}' for size in sizes])} facts, {count(len(seeds), 'training set')} each"
        )
    guided = (
        f" The dev score, which ranks the trials and makes the choices, is the {view.metric.words} on dev."
    )
    return f"{text}, and {count(sum(models.values()), 'model')} that answered questions.{guided}"


def key_figures(view: SweepView, choice: SweepChoiceRow) -> list[Figure]:
    figures = []
    for split, name in DOMAINS.items():
        score = view.of_choice(choice, split)
        if score is not None:
            words = f"95 % interval {interval_text(score.low, score.high, 1)} %"
            figures.append(Figure(f"Test accuracy, {name}", percent(score.mean), words))
    row = _plain_row(view, "test")
    if row is not None:
        figures.append(
            Figure(
                "Against the best plain fine-tuning, in domain",
                f"{points(row.difference)} points",
                row.verdict,
            )
        )
    elif ranked(view):
        figures.append(Figure("Strategy", choice.strategy, "chosen on dev"))
    return figures


def sharper(view: SweepView, found: Finding) -> Finding:
    """Findings decided by the sweep's own statistics; others as they are, by intervals over questions alone.

    Whether restoring helps: it agrees with the paper where more groups of training sets are significantly better than
    worse. Whether more data or unknown facts harm: see `_over_seeds`.
    """
    if found.question in (MORE_DATA, UNKNOWN):
        return _over_seeds(view, found)
    rows = [r for r in view.family(CHOSEN) if r.variant == view.main_name and r.split == "test"]
    if found.question != HELPS or not rows:
        return found
    better, worse = (sum(row.verdict == word for row in rows) for word in (BETTER, WORSE))
    here = (
        f"{found.here} Of {count(len(rows), 'group')} of training sets {better} are significantly better, "
        f"{worse} worse."
    )
    return replace(found, here=here, agrees=None if better == worse else better > worse)


def _over_seeds(view: SweepView, found: Finding) -> Finding:
    """The finding by the intervals over training sets and questions, where there are several training sets.

    The ends of its interval are the means of those of its pairs of groups, so that several pairs, which answer
    the same questions, are not taken to be surer than one.
    """
    assert view.main is not None
    if found.question == MORE_DATA:
        small, large = pairs_of_sizes(view.main)
        pairs = list(zip(large, small, strict=True))
    else:
        unknown, rest = unknown_and_others(view.main)
        pairs = [(unknown, other) for other in rest] if unknown else []
    scores = [tuple(view.score(view.main_name, group, 0.0, TEST) for group in pair) for pair in pairs]
    known = [(a, b) for a, b in scores if a and b]
    if not known or any(score.seeds < 2 for pair in known for score in pair):
        return found
    ends = [difference_of(a, b)[1:] for a, b in known]
    low, high = (mean([pair[at] for pair in ends]) for at in (0, 1))
    here = f"{found.here} Interval over training sets and questions: {points(low)} to {points(high)} points."
    # In the paper both lower the accuracy.
    return replace(found, here=here, agrees=None if low <= 0 <= high else high < 0)
