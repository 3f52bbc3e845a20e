"""The plain-words summary: what to do, what that gains, how sure it is, and what was tried."""

from __future__ import annotations

from dataclasses import dataclass

from sftlab.analysis.statistics import BETTER, NO_DIFFERENCE, ONE_SET, WORSE
from sftlab.reporting.table import NOTHING, Entry, Row, Table
from sftlab.reporting.text import count, listed, number, percent, points, restored
from sftlab.studies.knowledge.report.buckets import (
    LADDERS,
    RESTORE,
    bucket_name,
    doing,
    state_words,
    step_words,
)
from sftlab.studies.knowledge.report.figures import SPLIT_NAMES
from sftlab.studies.knowledge.report.lookup import DOMAINS
from sftlab.studies.knowledge.report.origin import Origin
from sftlab.studies.knowledge.report.strategies import (
    interval_text,
    points_text,
    score_entry,
    verdict_entry,
)
from sftlab.studies.knowledge.report.ties import nothing_gained, tie_of, with_tie
from sftlab.studies.knowledge.report.view import View, data_words, setting_words, share_of
from sftlab.studies.knowledge.results.rows import (
    BEST,
    ChoiceRow,
    ComparisonRow,
    GroupKey,
    GroupRow,
    fullest,
)

ORDERS = {
    "top": "most changed weights",
    "bottom": "least changed weights",
    "random": "weights, drawn at random,",
    "smallest-base": "smallest base weights",
    "shuffled": "weights in the order of shuffled changes",
}


@dataclass(frozen=True)
class Figure:
    """One number to remember: a label, the number, and what it is compared with."""

    label: str
    value: str
    change: str


@dataclass(frozen=True)
class Summary:
    studied: str
    recommendation: str
    sentences: tuple[str, ...]
    figures: tuple[Figure, ...]
    table: Table | None


def summarise(view: View, origin: Origin | None = None) -> Summary:
    best = view.results.recommended()
    if best is None:
        text = f"Nothing can be recommended: this {view.results.kind} has no accuracies on its dev splits."
        return Summary(studied(view), text, (), (), None)
    choice = best.choice
    sentences = [
        chosen_how(view, choice),
        *(score_sentence(view, choice, split) for split in DOMAINS),
        *(against_own(view, choice, split) for split in DOMAINS),
        *(against_plain(view, split) for split in DOMAINS),
        others(view),
        common(view),
        incomplete(view),
        (origin or Origin()).how_to_get(best.model),
    ]
    return Summary(
        studied=studied(view),
        recommendation=recommendation(view, choice),
        sentences=tuple(sentence for sentence in sentences if sentence),
        figures=tuple(key_figures(view, choice)),
        table=comparison(view, choice),
    )


def recommendation(view: View, choice: ChoiceRow) -> str:
    """What to do, and in the same breath whether it is really better than plain fine-tuning."""
    settings = setting_words(view.variants[choice.variant])
    detail = f" ({settings})" if settings else ""
    tune = f"Fine-tune on {data_words(*choice.group[1:])}"
    step = step_words(choice.strategy, choice.percent, share_of(view.variants[choice.variant]))
    plain = not step and (choice.variant == view.results.reference or choice.strategy in LADDERS)
    if plain:
        does = f"{tune}, and restore nothing."
    elif choice.strategy in LADDERS:
        does = f"{tune}, then {step}{detail}."
    else:
        does = f"{tune} by the strategy {choice.strategy}{detail}{f', then {step}' if step else ''}."
    ladder = _percents(view).get(choice.group, set())
    gained = nothing_gained(choice, ladder)
    return with_tie(tie_of(view.results, choice), does, gained, _standing(view, plain))


def _standing(view: View, is_plain: bool) -> str:
    """Whether test confirms it against the best plain fine-tuning."""
    if is_plain:
        return "No strategy had a better dev score than plain fine-tuning." if view.several else ""
    found = [row for split in DOMAINS if (row := _plain_row(view, split))]
    if not found:
        return ""
    if all(row.verdict == ONE_SET for row in found):
        return "There is one training set, so that test gives no verdict: its differences are for this training set."
    sure = [DOMAINS[row.split] for row in found if row.verdict == BETTER]
    worse = [DOMAINS[row.split] for row in found if row.verdict == WORSE]
    rest = [DOMAINS[row.split] for row in found if row.verdict == NO_DIFFERENCE]
    if len(rest) == len(found):
        return "On test there is no significant difference from the best plain fine-tuning."
    parts = [f"better {listed(sure)}"] if sure else []
    parts += [f"worse {listed(worse)}"] if worse else []
    parts += [f"without a significant difference {listed(rest)}"] if rest else []
    return f"On test it is, against the best plain fine-tuning, {listed(parts)}."


def _plain_row(view: View, split: str) -> ComparisonRow | None:
    """The recommended models against the best plain fine-tuning."""
    rows = [row for row in view.family(BEST) if row.split == split and view.is_plain(row)]
    return rows[-1] if rows else None


def chosen_how(view: View, choice: ChoiceRow) -> str:
    groups, percents = fullest(view.choices("group")), _percents(view)
    models = sum(len(percents[row.group]) for row in groups)
    tie = tie_of(view.results, choice)
    return (
        f"It was chosen on the dev questions alone, with {percent(choice.dev)} there "
        f"({view.metric.words}), {'one of the best' if tie else 'the best'} of {count(models, 'setting')} in "
        f"{count(len(groups), 'group')} of training sets. The test questions took no part in the choice."
        f"{f' {tie.names}' if tie else ''} {view.competing_rule}".rstrip()
    )


def _percents(view: View) -> dict[GroupKey, set[float]]:
    found: dict[GroupKey, set[float]] = {}
    for row in view.results.groups:
        found.setdefault(row.group, set()).add(row.percent)
    return found


def score_sentence(view: View, choice: ChoiceRow, split: str) -> str:
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


def against_own(view: View, choice: ChoiceRow, split: str) -> str:
    """Against 0 % of the same training sets, where that is not the best plain fine-tuning."""
    row = view.results.against_tuned(choice, split)
    if row is None or row == _plain_row(view, split):
        return ""
    return _difference(row, "the same models at 0 %")


def against_plain(view: View, split: str) -> str:
    row = _plain_row(view, split)
    if row is None:
        return ""
    other = data_words(row.against_bucket, row.against_size)
    return _difference(row, f"the best plain fine-tuning ({other}, chosen on dev too)")


def _difference(row: ComparisonRow, other: str) -> str:
    p = "one training set" if row.p_corrected is None else f"{p_text(row.p_corrected)} after correction"
    return (
        f"{DOMAINS[row.split].capitalize()}, against {other}: {points(row.difference)} points, "
        f"95 % interval {points_text(row)}: {row.verdict} ({p}; "
        f"{row.gained:,} answers gained and {row.lost:,} lost on {count(row.questions, 'question')} "
        f"\N{MULTIPLICATION SIGN} {count(row.seeds, 'training set')})."
    )


def p_text(p: float) -> str:
    return "p < 0.0001" if p < 1e-4 else f"p = {number(p, 4 if p < 0.01 else 2)}"


def others(view: View) -> str:
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


def common(view: View) -> str:
    """What one percentage for all training sets does, where there is one variant."""
    row, groups = next(iter(view.choices("common")), None), view.choices("group")
    if view.several or row is None or row.test is None or row.test_tuned is None or len(groups) < 2:
        return ""
    if not row.percent:
        return f"As one percentage for all, dev chooses 0 %: {doing(row.strategy)} does not help on average."
    return (
        f"As one percentage for all {row.seeds} runs, dev chooses {restored(row.percent)}: "
        f"{points(row.test - row.test_tuned)} points in domain on average."
    )


def incomplete(view: View) -> str:
    """A warning where a score is not the mean of all five buckets."""
    rows = [row for variant in view.results.variants for row in variant.accuracy if row.empty_buckets]
    splits = [split for split in SPLIT_NAMES if split != "train_set" and any(r.split == split for r in rows)]
    if not splits:
        return ""
    where = listed([SPLIT_NAMES[split] for split in splits])
    return f"Careful: not every bucket has questions in: {where}. The means there leave the empty ones out."


def studied(view: View) -> str:
    """What was done, in numbers."""
    results, main = view.results, view.main
    names = list(dict.fromkeys(variant.strategy for variant in results.variants))
    cells = [cell for variant in results.variants for cell in variant.cells]
    models = {(r.group, r.percent): r.seeds for r in results.groups}
    text = f"This {results.kind} asks what fine-tuning does to what a base model, {results.model}, knows."
    if main is None or not cells:
        return text
    runs = f"It fine-tuned the model {count(len(cells), 'time')}"
    if view.several:
        runs += (
            f", in {count(len(results.variants), 'variant')} of {count(len(names), 'strategy', 'strategies')}"
        )
    plain = [bucket for bucket in view.train_buckets if bucket.isdecimal()]
    kinds = [f"{'buckets' if len(plain) > 1 else 'bucket'} {listed(plain)}"] if plain else []
    mixed = [bucket for bucket in view.train_buckets if bucket not in plain]
    kinds += [bucket_name(bucket) for bucket in mixed] if len(mixed) < 4 else [f"{len(mixed)} mixtures"]
    sizes = listed([f"{size:,}" for size in sorted({cell.size for cell in cells})])
    sets = count(len({cell.set_seed for cell in cells}), "training set")
    text += f" {runs}, on {', and '.join(kinds)} with {sizes} facts, {sets} each"
    steps = [f"{p:g}" for p in main.percents if p > 0]
    if steps and not view.several:
        strategy = main.variant.strategy
        weights = ORDERS.get(main.order, "weights")
        text += (
            f", put {listed(steps)} % of each tuned model's {weights} back to their base values"
            if strategy == RESTORE
            else f", edited each tuned model by the strategy {strategy} at {listed(steps)} %"
        )
    asked = [f"{main.questions(split):,} {name}" for split, name in DOMAINS.items() if main.questions(split)]
    text += f", and put questions to {count(sum(models.values()), 'model')}"
    text += f": {listed(asked)} test questions each." if asked else "."
    return f"{text} The dev score, which makes the choices, is the {view.metric.words} on dev."


def key_figures(view: View, choice: ChoiceRow) -> list[Figure]:
    figures = []
    for split, name in DOMAINS.items():
        score = view.of_choice(choice, split)
        if score is not None:
            words = f"95 % interval {interval_text(score.low, score.high, 1)} %"
            figures.append(Figure(f"Test accuracy, {name}", percent(score.mean), words))
    row = _plain_row(view, "test")
    if row is not None:
        name = "Against the best plain fine-tuning, in domain"
        figures.append(Figure(name, f"{points(row.difference)} points", row.verdict))
    elif view.several:
        figures.append(Figure("Strategy", choice.strategy, "chosen on dev"))
    what = "Restored weights" if choice.strategy == RESTORE else f"Percentage of {choice.strategy}"
    how = "tied on dev" if tie_of(view.results, choice) else "chosen on dev"
    return [*figures, Figure(what, restored(choice.percent), how)]


def comparison(view: View, choice: ChoiceRow) -> Table | None:
    """The base model, the tuned models and the recommended ones on the test questions."""
    splits = [split for split in DOMAINS if view.of_choice(choice, split)]
    if not splits or view.main is None:
        return None
    base = [view.main.base(split) for split in splits]
    rows = [Row("base model", [Entry(percent(value)) if value is not None else NOTHING for value in base])]
    for at in dict.fromkeys((0.0, choice.percent)):
        scores = [view.of_choice(choice, split, at) for split in splits]
        entries = [score_entry(score, strong=bool(at)) for score in scores]
        rows.append(Row(state_words(choice.strategy, at), entries))
    if choice.percent:
        found = [view.results.against_tuned(choice, split) for split in splits]
        rows.append(Row("gain, points", [verdict_entry(row) for row in found]))
    note = "The base model has not been tuned to this form of question; what it knows is its mastery, below."
    caption = (
        "Test accuracy in %: mean of the five buckets of the base model's mastery, and over training sets"
    )
    return Table(caption, "", [DOMAINS[split] for split in splits], rows, note=note)
