"""Several base models on one page: their mastery (Table 8), accuracy by size (Figure 6), and what dev recommends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from sftlab.analysis.statistics import BETTER, WORSE
from sftlab.reporting.page import csv_address, fill_page
from sftlab.reporting.section import NOT_MEASURED, Section, present
from sftlab.reporting.table import NOTHING, Entry, Row, Table
from sftlab.reporting.text import count, listed, percent
from sftlab.studies.knowledge.report import figures, published
from sftlab.studies.knowledge.report.buckets import bucket_name, legends
from sftlab.studies.knowledge.report.caveat import caveat_of
from sftlab.studies.knowledge.report.lookup import DOMAINS, bucket_order
from sftlab.studies.knowledge.report.strategies import score_entry, verdict_entry
from sftlab.studies.knowledge.report.summary import Figure, Summary, recommendation
from sftlab.studies.knowledge.report.view import View
from sftlab.studies.knowledge.results.tables import Results

SPLITS = ("train", "test", "test_ood")


@dataclass(frozen=True)
class Heading:
    """What the page calls itself."""

    name: str
    model: str


@dataclass(frozen=True)
class MasteryShare:
    """A row of the page's data: facts of a base model by split and bucket (None: not scored)."""

    model: str
    split: str
    bucket: int | None
    facts: int


def render_models(results: Sequence[Results]) -> str:
    """The page as HTML text, of two or more results about the same questions; it refers to nothing outside itself."""
    views = dict(zip(model_names(results), map(View, results), strict=True))
    shares = [
        MasteryShare(name, row.split, row.bucket, row.facts)
        for name, view in views.items()
        for row in (view.main.variant.mastery if view.main else ())
    ]
    groups = [
        {"model": name, **asdict(row)}
        for name, view in views.items()
        for row in view.results.groups
        if row.variant == view.main_name
    ]
    data = {"mastery": [asdict(row) for row in shares], "groups": groups}
    buckets = sorted({bucket for view in views.values() for bucket in view.train_buckets}, key=bucket_order)
    return fill_page(
        legends(buckets),
        ["style.css", "sweep.css"],
        results=Heading(f"{count(len(views), 'base model')} compared", listed(list(views))),
        summary=_summary(views),
        findings=[],
        sections=[_recommended(views), _mastery(views), _by_size(views)],
        downloads={name: (csv_address(rows), len(rows)) for name, rows in data.items() if rows},
        whole="comparison",
        paper=published.PAPER,
        paper_model=published.PAPER_MODEL,
        paper_after="",
        caveat=next(filter(None, (caveat_of(view.results) for view in views.values())), ""),
    )


def model_names(results: Sequence[Results]) -> list[str]:
    """What each base model is called; with the name of its study or sweep where two have the same."""
    times = Counter(found.model for found in results)
    names = [f"{found.model}, {found.name}" if times[found.model] > 1 else found.model for found in results]
    again = Counter(names)
    return [f"{name} ({place})" if again[name] > 1 else name for place, name in enumerate(names, start=1)]


def _summary(views: dict[str, View]) -> Summary:
    """On how many base models restoring helps, and what dev recommends for each."""
    sentences, restored, better, worse = [], 0, 0, 0
    for name, view in views.items():
        choice = view.recommended
        if choice is None:
            sentences.append(f"{name}: nothing can be recommended, as there are no accuracies on dev.")
            continue
        sentences.append(f"{name}: {recommendation(view, choice)}")
        found = [view.results.against_tuned(choice, split) for split in DOMAINS]
        verdicts = {row.verdict for row in found if row is not None}
        restored += bool(choice.percent)
        better += BETTER in verdicts and WORSE not in verdicts
        worse += WORSE in verdicts
    of = count(len(views), "base model")
    return Summary(
        studied="Each base model has its own study or sweep, its own training sets and its own choice on dev; the test "
        "questions are the same.",
        recommendation=f"An edit of the tuned model is chosen on dev for {restored} of {of}; on test it is better for "
        f"{better} and worse for {worse}.",
        sentences=tuple(sentences),
        figures=(
            Figure("base models", str(len(views)), "the same questions"),
            Figure("edited after fine-tuning", str(restored), "chosen on dev"),
            Figure("better on test", str(better), f"{worse} worse, {restored - better - worse} undecided"),
        ),
        table=None,
    )


def _recommended(views: dict[str, View]) -> Section:
    """What dev chose for each base model, on test."""
    rows = []
    for name, view in views.items():
        choice = view.recommended
        if choice is None:
            rows.append(Row(name, [NOTHING] * (2 + 2 * len(DOMAINS))))
            continue
        trained = f"{choice.size or 0:,} facts of {bucket_name(choice.train_bucket or '')}"
        edit = f"{choice.strategy}, {choice.percent:g} %" if choice.percent else choice.strategy
        entries = [Entry(trained), Entry(edit)]
        for split in DOMAINS:
            entries.append(score_entry(view.of_choice(choice, split)))
            entries.append(verdict_entry(view.results.against_tuned(choice, split)))
        rows.append(Row(name, entries))
    table = Table(
        "The recommended models of each base model: test accuracy in %, and the gain over their tuned models in points",
        "base model",
        ["trained on", "strategy", *["score", "gain"] * len(DOMAINS)],
        rows,
        [("", 2), *((f"test, {name}", 2) for name in DOMAINS.values())],
        note="Under each number its 95 % interval over questions and training sets. Verdicts are corrected within each "
        "study or sweep, not over the base models.",
    )
    see = "Each row is chosen on the dev questions of its base model alone."
    return Section(
        "recommended", "What is recommended for each base model", see, tables=[table], data=("groups",)
    )


def _mastery(views: dict[str, View]) -> Section:
    """Table 8: facts by bucket, base models side by side."""
    mains = {name: view.main for name, view in views.items() if view.main and view.main.variant.mastery}
    rows: list[Row] = []
    train: dict[str, list[int]] = {}
    for split in SPLITS:
        block = []
        for name, main in mains.items():
            facts = [figures.mastery_facts(main, split, bucket) for bucket in range(5)]
            if not sum(facts):
                continue
            if split == "train":
                train[name] = facts
            entries = [Entry(f"{n:,}", percent(n / sum(facts), 0)) for n in facts]
            block.append(Row(name, [*entries, Entry(f"{sum(facts):,}")]))
            if paper := published.model_of(name):
                shares = [Entry("", percent(share, 0)) for share in published.mastery_shares(split, paper)]
                block.append(Row(f"paper: {paper}", [*shares, NOTHING], quiet=True))
        rows += [Row(figures.SPLIT_NAMES[split]), *block] if block else []
    if not rows:
        return Section("mastery", "What the base models know", NOT_MEASURED)
    known = {name: facts[4] / sum(facts) for name, facts in train.items()}
    see = NOT_MEASURED
    if known:
        most, least = max(known, key=known.__getitem__), min(known, key=known.__getitem__)
        see = f"{most} has the most well-mastered train facts ({percent(known[most], 0)} in bucket 4)"
        see += f", {least} the fewest ({percent(known[least], 0)})." if most != least else "."
    plot = figures.stacked_buckets(
        train, "mastery-models", "Share of train facts in each mastery bucket, by base model"
    )
    table = Table(
        "Facts by mastery bucket and base model (the paper's Table 8)",
        "base model",
        ["0", "1", "2", "3", "4", "scored"],
        rows,
        [("bucket", 5), ("facts", 1)],
    )
    return Section(
        "mastery",
        "What the base models know",
        see,
        present(plot),
        [table],
        data=("mastery",),
        legend=plot is not None,
    )


def _by_size(views: dict[str, View]) -> Section:
    """Figure 6: accuracy of the tuned models by size and bucket, a pair of figures a base model."""
    plots = []
    for place, (name, view) in enumerate(views.items()):
        if view.main is None:
            continue
        main = replace(view.main, prefix=f"m{place}-", title=name)
        plots += [figures.accuracy_by_size(main, split) for split in DOMAINS]
    drawn = present(*plots)
    see = "Dashed: the base model before fine-tuning. Nothing is restored." if drawn else NOT_MEASURED
    return Section(
        "accuracy", "Accuracy by training size (the paper's Figures 2 and 6)", see, drawn, legend=bool(drawn)
    )
