"""The page of a compared table of scores: one self-contained HTML file, the finding first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sftlab.analysis.gains import BASELINE_FREE, DOUBLE_CENTRED, RAW, STANDARDISED, TREATMENTS
from sftlab.reporting.table import NOTHING, Entry, Row, Table
from sftlab.reporting.text import count, listed, number, percent
from sftlab.studies.survey.compare import Comparison, csv_text
from sftlab.studies.survey.report.champion_section import CHAMPIONS
from sftlab.studies.survey.report.figures import claim_effects
from sftlab.studies.survey.report.plain import p_text, signed
from sftlab.studies.survey.report.sections import sections
from sftlab.studies.survey.verdicts import Outcome

if TYPE_CHECKING:
    from jinja2 import Environment

LONGEST_CSV = 400_000  # characters; longer tables are in the folder of tables alone
WORDS = ("agrees", "differs", "depends on the baseline", "open")
RULES = (
    "A direction agrees or differs where the corrected p is below 0.05 and the interval does not contain 0, otherwise "
    "it is open; a claim of no effect agrees where the whole interval is inside a margin set beforehand. A claim "
    "depends on the baseline where its verdict changes when the base models' scores are taken out."
)


@dataclass(frozen=True)
class Key:
    """One large number of the summary."""

    label: str
    value: str
    note: str


@dataclass(frozen=True)
class ClaimRow:
    """A row of the table of claims."""

    says: str
    where: str
    with_baseline: str
    free: str
    word: str


def render(comparison: Comparison) -> str:
    """The page as HTML text. It refers to nothing outside itself; the same comparison gives the same bytes."""
    survey, grid = comparison.survey, comparison.survey.grid
    defined = comparison.defined
    return (
        _environment()
        .get_template("compare.html.j2")
        .render(
            title=survey.table.source,
            grid=f"{count(len(grid.models), 'model')} × {count(len(grid.sets), 'training set')} × "
            f"{count(len(grid.benchmarks), 'benchmark')}: {grid.condition}",
            finding=finding(comparison),
            keys=keys(comparison),
            sentences=sentences(comparison),
            claims=[_claim_row(outcome) for outcome in defined],
            claims_figure=claim_effects(_points(defined)),
            claims_table=claims_table(defined),
            untested=untested_table(comparison.outcomes),
            rules=RULES,
            paper=str(comparison.published.paper),
            sections=sections(comparison),
            downloads={name: downloaded(rows) for name, rows in comparison.tables.items() if rows},
            command="sftlab survey" if CHAMPIONS in comparison.tables else "sftlab compare",
            claims_first=CHAMPIONS not in comparison.tables,
            seed=survey.seed,
            style=_style(),
        )
    )


def downloaded(rows: Sequence[Mapping[str, Any]]) -> tuple[str, int]:
    """A table as a CSV address of the page, empty where it is too long for a page, and its number of rows."""
    text = csv_text([dict(row) for row in rows])
    return ("" if len(text) > LONGEST_CSV else f"data:text/csv;charset=utf-8,{quote(text)}"), len(rows)


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("sftlab.studies.survey.report", "data"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _style() -> str:
    shared = files("sftlab.reporting").joinpath("data/style.css").read_text(encoding="utf-8")
    return shared + files("sftlab.studies.survey.report").joinpath("data/compare.css").read_text(
        encoding="utf-8"
    )


def finding(comparison: Comparison) -> str:
    """The first sentence: the sets that help and harm, beyond the correction, and whether faults prevent a verdict."""
    rows = comparison.tables["sets"]
    helps = [row for row in rows if row["standardised_p"] < 0.05 and row["standardised_low"] > 0]
    harms = [row for row in rows if row["standardised_p"] < 0.05 and row["standardised_high"] < 0]
    best = sorted(helps, key=lambda row: -row["standardised"])
    worst = sorted(harms, key=lambda row: row["standardised"])
    parts = []
    if best:
        parts.append(
            f"{listed([row['data'] for row in best])} {'raises' if len(best) == 1 else 'raise'} the scores"
        )
    if worst:
        parts.append(
            f"{listed([row['data'] for row in worst])} {'lowers' if len(worst) == 1 else 'lower'} them"
        )
    said = "; ".join(parts) if parts else _nothing(rows, len(comparison.survey.grid.models))
    copies = comparison.tables["copied_baselines"]
    warning = (
        f" Beware: {count(len(copies), 'pair')} of baselines {'is' if len(copies) == 1 else 'are'} copied, which "
        "shifts every gain of these models."
        if copies
        else ""
    )
    return f"{said}.{warning}"


def _nothing(rows: Sequence[Mapping[str, Any]], models: int) -> str:
    """No set has a sure effect: what the tests could have found."""
    found = sorted(
        row["standardised_detectable"] for row in rows if row["standardised_detectable"] is not None
    )
    if not found:
        return (
            f"Nothing can be tested: the gains of each training set are equal on all {count(models, 'model')}, so that "
            "they have no variance"
        )
    return (
        "No training set raises or lowers the scores beyond chance; a mean gain of "
        f"{found[len(found) // 2]:.2f} standard deviations would have been detected"
    )


def keys(comparison: Comparison) -> list[Key]:
    survey = comparison.survey
    words = comparison.counts()
    missing = len(comparison.tables["missing_runs"])
    gaps = sum(row["runs"] * row["benchmarks"] for row in comparison.tables["missing_scores"])
    found = [
        Key(
            "models scored",
            f"{len(survey.table.runs):,}",
            f"on {count(len(survey.table.benchmarks), 'benchmark')}",
        ),
        Key(
            "copied baselines",
            str(len(comparison.tables["copied_baselines"])),
            "pairs of base models with the same scores",
        ),
        Key("missing", f"{gaps:,}", f"scores; and {count(missing, 'run')} of nearly complete grids"),
    ]
    if words:
        others = [f"{words[word]} {_short(word, words[word])}" for word in WORDS[1:] if word in words]
        found.insert(
            1, Key("claims that agree", f"{words.get('agrees', 0)} of {sum(words.values())}", listed(others))
        )
    return found


def _short(word: str, number: int) -> str:
    """A word of a verdict behind a number."""
    if word.startswith("depends"):
        return "depends" if number == 1 else "depend"
    return word


def sentences(comparison: Comparison) -> list[str]:
    """What else a reader has to know, from the numbers."""
    found = []
    for row in comparison.tables["copied_baselines"]:
        found.append(
            f"The baselines of {row['first']} (row {row['first_row']}) and {row['second']} (row {row['second_row']}) "
            f"are equal in {row['equal']} of {row['compared']} scores."
        )
    low = [row for row in comparison.tables["below_chance"] if row["share_below"] > 0.1]
    if low:
        shares = [f"{row['benchmark']} {percent(row['share_below'], 0)}" for row in low]
        found.append(
            f"Below chance are, of all scores: {listed(shares)}. Answers that guessing would beat are answers in "
            "another form than asked, so that gains there are of form first."
        )
    depends = [o.claim.says for o in comparison.defined if o.word.startswith("depends")]
    if depends:
        found.append(f"Depends on the baseline: {'; '.join(depends)}.")
    differs = [o.claim.says for o in comparison.defined if o.word == "differs"]
    if differs:
        found.append(f"Differs from the paper: {'; '.join(differs)}.")
    if comparison.survey.grid.left_out:
        found.append(f"Not in the main grid: {'; '.join(comparison.survey.grid.left_out)}.")
    changes = [row for row in comparison.tables["shots"] if row["sign_changes"]]
    if changes:
        pairs = listed([f"{row['zero_shot']} / {row['few_shot']}" for row in changes])
        found.append(f"The mean effect changes its sign between zero-shot and few-shot: {pairs}.")
    return found


def _claim_row(outcome: Outcome) -> ClaimRow:
    with_baseline = STANDARDISED if STANDARDISED in outcome.effects else RAW
    free = BASELINE_FREE if BASELINE_FREE in outcome.effects else DOUBLE_CENTRED
    missing = "no baseline in it"
    return ClaimRow(
        outcome.claim.says,
        outcome.claim.where,
        _effect_text(outcome, with_baseline),
        _effect_text(outcome, free) if free in outcome.effects else missing,
        outcome.word,
    )


def _effect_text(outcome: Outcome, treatment: str) -> str:
    effect = outcome.effects[treatment]
    p = outcome.corrected[treatment]
    before = "r " if outcome.unit == "r" else ""
    after = " sd" if outcome.unit in ("gain", "standard deviations") and treatment != RAW else ""
    ends = f"[{signed(effect.low)}, {signed(effect.high)}]"
    published = outcome.published_p.get(treatment)
    other = "" if published is None else f"; the paper's test: p\N{NO-BREAK SPACE}{published:.2g}"
    return f"{before}{signed(effect.value)}{after} {ends}, {_p(p)}{other}"


def _p(p: float) -> str:
    return f"p\N{NO-BREAK SPACE}{p_text(p)}"


def _points(outcomes: Sequence[Outcome]) -> list[tuple[str, str, float, float, float]]:
    found = []
    for outcome in outcomes:
        name = STANDARDISED if STANDARDISED in outcome.effects else RAW
        effect = outcome.effects[name]
        found.append((outcome.claim.says, outcome.word, effect.value, effect.low, effect.high))
    return found


def claims_table(outcomes: Sequence[Outcome]) -> Table:
    """Every claim in every treatment, with what the test could have seen."""
    rows = []
    for outcome in outcomes:
        entries = []
        for name in TREATMENTS:
            effect = outcome.effects.get(name)
            if effect is None:
                entries.append(NOTHING)
                continue
            below = [
                f"[{signed(effect.low)}, {signed(effect.high)}]",
                f"{_p(outcome.corrected[name])}; detectable {number(effect.detectable, 2)}",
                outcome.words[name],
            ]
            if name in outcome.published_p:
                below.append(f"published test: p {outcome.published_p[name]:.2g}")
            entries.append(Entry(signed(effect.value), below=below))
        first = next(iter(outcome.effects.values()))
        entries += [Entry(outcome.unit), Entry(first.interval_over), Entry(first.p_by)]
        rows.append(Row(outcome.claim.id, entries))
    return Table(
        "Every claim in every treatment",
        "claim",
        [*TREATMENTS, "unit", "interval", "p"],
        rows,
        note="Raw gains have the units of their benchmarks, which do not average. Detectable: the smallest true effect "
        "that the test finds with 80 % power at 5 %, before correction.",
        folded=f"All {len(rows)} claims in all treatments",
    )


def untested_table(outcomes: Sequence[Outcome]) -> Table | None:
    """Claims that this table cannot decide, and why."""
    rows = [Row(o.claim.says, [Entry(o.reason)]) for o in outcomes if not o.word]
    if not rows:
        return None
    return Table(
        "Claims that this table does not decide",
        "claim",
        ["why"],
        rows,
        folded=f"{count(len(rows), 'claim')} not tested",
    )
