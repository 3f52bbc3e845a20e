"""The report's words: published numbers, comparisons with the paper, the summary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from sftlab.reporting.finding import Finding
from sftlab.reporting.text import listed, number, percent, points, restored
from sftlab.studies.knowledge.report import published
from sftlab.studies.knowledge.report.evidence import beyond_null, contrast, distribution
from sftlab.studies.knowledge.report.findings import all_findings, concentrated, feed_forward, layers_first
from sftlab.studies.knowledge.report.lookup import Group, VariantView
from sftlab.studies.knowledge.report.plain_tables import mastery
from sftlab.studies.knowledge.report.summary import summarise
from sftlab.studies.knowledge.report.tables import ladder
from sftlab.studies.knowledge.report.view import View
from sftlab.studies.knowledge.results.rows import AccuracyRow, DistributionRow
from sftlab.studies.knowledge.results.tables import Results
from tests.support.report_study import bucket_accuracy, filled, paper_study, with_scores


@pytest.fixture(scope="module")
def study() -> Results:
    return paper_study(scale=4, seeds=(0, 1, 2))


def by_question(study: Results) -> dict[str, Finding]:
    return {found.question: found for found in all_findings(View(study))}


def main(study: Results) -> VariantView:
    found = View(study).main
    assert found is not None
    return found


def with_accuracy(study: Results, value: float) -> Results:
    """The study with one and the same accuracy everywhere."""
    return with_scores(study, lambda row: replace(row, accuracy=value))


def with_distribution(study: Results, rows: list[DistributionRow]) -> Results:
    return replace(study, variants=[replace(study.variants[0], distribution=rows)])


def test_published_numbers_are_read_as_shares() -> None:
    assert published.ladder("test", 1920)[20.0] == pytest.approx([0.5481, 0.5833, 0.6221, 0.5893, 0.5866])
    assert published.ladder("test_ood", 240)[0.0][0] == pytest.approx(0.5237)
    assert published.training_set(240)[5.0][4] == pytest.approx(0.9375)
    assert bucket_accuracy(0, "test", 4) == pytest.approx(0.8346)
    assert published.concentration_range()[1.0] == pytest.approx((0.7056, 0.7113))
    assert sum(published.layer_shares()) == pytest.approx(1, abs=0.01)
    assert sum(published.module_shares().values()) == pytest.approx(1, abs=0.001)
    assert published.mastery_shares("train")[1] == pytest.approx(29571 / 75944)


def test_the_papers_own_numbers_agree_with_the_paper(study: Results) -> None:
    found = all_findings(View(study))
    assert len(found) == 13
    assert [f.question for f in found if f.agrees is False] == []
    agreeing = {f.question for f in found if f.agrees}
    assert "Do facts that the model does not know make the worst training data?" in agreeing
    assert "Does restoring too much make the model collapse (below half of its accuracy)?" in agreeing


def test_a_study_without_differences_leaves_the_comparisons_open(study: Results) -> None:
    found = by_question(with_accuracy(study, 0.5))
    assert found["Does more training data lower accuracy?"].agrees is None
    assert found["Does restoring weights improve the tuned models?"].agrees is None
    assert found["Do models with more training data gain more?"].agrees is None


def test_a_study_turned_around_differs(study: Results) -> None:
    def turned(row: AccuracyRow) -> AccuracyRow:
        """Sizes swap their accuracies, bucket 0 with bucket 4."""
        return replace(
            row,
            size={240: 1920, 1920: 240}.get(row.size or 0, row.size),
            train_bucket={"0": "4", "4": "0"}.get(row.train_bucket or "", row.train_bucket),
        )

    (variant,) = study.variants
    named = {(c.train_bucket, c.size, c.set_seed): c.cell for c in variant.cells}
    rows = [turned(row) for row in variant.accuracy if row.split != "train_set"]
    rows = [
        r
        if r.cell == "base"
        else replace(r, cell=named[str(r.train_bucket), int(r.size or 0), int(r.set_seed or 0)])
        for r in rows
    ]
    found = by_question(filled(replace(variant, accuracy=rows)))
    assert found["Does more training data lower accuracy?"].agrees is not True
    assert found["Do models tuned on unknown facts gain most?"].agrees is not True


def test_one_training_set_leaves_every_finding_about_models_open() -> None:
    found = all_findings(View(paper_study(scale=4)))
    open_questions = [f for f in found if "for this training set alone" in f.here]
    assert len(open_questions) == 9 and all(f.agrees is None for f in open_questions)


def test_a_contrast_holds_the_sets_and_the_questions() -> None:
    sure = contrast([0.05, 0.06, 0.07], 0.01)
    assert (sure.sets, sure.agrees(1.0), sure.agrees(-1.0)) == (3, True, False)
    assert sure.low == pytest.approx(0.06 - 4.3027 * 0.01 / 3**0.5, abs=1e-5)  # t with two degrees of freedom
    assert (
        contrast([0.05, 0.06, 0.07], 0.06).agrees(1.0) is None
    )  # the questions leave more open than the sets
    assert contrast([-0.02, 0.06, 0.14], 0.01).agrees(1.0) is None
    assert contrast([0.06], 0.01).agrees(1.0) is None


def test_kl_has_an_interval_over_facts_and_sets() -> None:
    study = paper_study(scale=40, buckets=(2,), sizes=(240,), seeds=(0, 1))
    (variant,) = study.variants
    rows = [replace(r, kl=0.4 + 0.1 * int(r.cell[-1]), error=0.02) for r in variant.divergence]
    view = main(replace(study, variants=[replace(variant, divergence=rows)]))
    found = view.kl_interval(Group("2", 240))
    assert found is not None and found.value == pytest.approx(0.45)
    assert found.high == pytest.approx(0.45 + 12.7062 * 0.05, abs=1e-4)  # t with one degree of freedom
    assert found.low == 0.0
    one = main(paper_study(scale=40, buckets=(2,), sizes=(240,)))
    assert one.kl_interval(Group("2", 240)) is None  # neither is known


def test_the_published_column_follows_the_base_model() -> None:
    names = {"Llama-2-7b-hf": "LLaMA-2-7B", "Meta-Llama-3-70B": "LLaMA-3-70B", "LLaMA-3-8B": "LLaMA-3-8B"}
    assert {name: published.model_of(name) for name in names} == names
    assert published.model_of("pocket Llama") is None and published.model_of("Llama-3.1-8B") is None
    assert published.by_test_bucket("LLaMA-3-70B")[0] == "LLaMA-3-70B"
    assert published.by_test_bucket("LLaMA-2-7B")[0] == published.by_test_bucket(None)[0] == "LLaMA-3-8B"
    study = paper_study(scale=40, buckets=(2,), sizes=(240,))
    tables = [mastery(main(replace(study, model=name))) for name in ("Llama-2-13B", "pocket Llama")]
    assert [table.caption.rsplit(" ", 1)[1] for table in tables if table] == ["LLaMA-2-13B", "LLaMA-3-8B"]
    assert tables[0] is not None and tables[1] is not None
    assert tables[0].rows[-1].entries[0] != tables[1].rows[-1].entries[0]


def test_the_notes_on_the_paper_s_contradictions_are_true_of_its_tables() -> None:
    ood = published.ladder("test_ood", 1920)
    assert ood[20.0][3] - ood[0.0][3] == pytest.approx(-0.0156)
    assert ood[0.0][0] == pytest.approx(0.494)
    assert published.by_test_bucket("LLaMA-3-8B")[1][0][11] == [46.24, 0.29]


def test_summary_names_group_percentage_and_test_accuracies(study: Results) -> None:
    summary, choice = summarise(View(study)), study.choice[-1]
    assert summary.recommendation.startswith(
        f"Fine-tune on 1,920 facts of bucket 2, then restore {restored(choice.percent)} of the weights."
    )
    assert choice.test is not None and choice.test_ood is not None
    values = [figure.value for figure in summary.figures]
    assert values[:2] == [percent(choice.test), percent(choice.test_ood)]
    assert values[-1] == restored(choice.percent)
    assert "240 models" in summary.studied
    assert summary.table is not None
    assert [row.heading for row in summary.table.rows] == [
        "base model",
        "tuned",
        f"{restored(choice.percent)} restored",
        "gain, points",
    ]


def test_a_study_where_restoring_does_not_help_recommends_to_restore_nothing(study: Results) -> None:
    worse = with_scores(study, lambda r: replace(r, accuracy=0.2) if r.percent else r)
    summary = summarise(View(worse))
    assert "and restore nothing. On dev no percentage was better than 0 %" in summary.recommendation
    assert not any("points" in figure.change for figure in summary.figures)


def test_missing_buckets_are_admitted(study: Results) -> None:
    rows = [replace(r, empty_buckets=1) if r.split == "test" else r for r in study.variants[0].accuracy]
    found = replace(study, variants=[replace(study.variants[0], accuracy=rows)])
    assert any("Careful" in s and "test, in domain" in s for s in summarise(View(found)).sentences)


def test_ladder_table_shows_accuracy_change_and_choice(study: Results) -> None:
    table = ladder(View(study), "test")
    assert table is not None and list(table.columns) == ["0", "1", "2", "3", "4"]
    view, block = main(study), table.rows[1:9]
    assert [row.heading for row in block] == [restored(p) for p in view.percents]
    tuned, at_60 = (
        next(
            r.mean
            for r in study.groups
            if (r.train_bucket, r.size, r.percent, r.split, r.bucket) == ("0", 240, p, "test", None)
        )
        for p in (0.0, 60.0)
    )
    assert block[0].entries[0].text.startswith(f"{number(100 * tuned)} ± ")
    assert block[7].entries[0].note == points(at_60 - tuned)
    assert block[7].entries[0].tone == -1
    assert sum(row.entries[0].chosen for row in block) == 1


def test_weights_outside_of_the_layers_do_not_count_as_a_layer(study: Results) -> None:
    rows = [
        replace(r, name="outside the layers") if r.kind == "layer" and r.name == "0" else r
        for r in study.variants[0].distribution
    ]
    layers = distribution(main(with_distribution(study, rows)), "layer")
    assert [name for name, _ in layers] == [str(layer) for layer in range(1, 32)]
    assert sum(share for _, share in layers) == pytest.approx(1)


def test_feed_forward_blocks_are_compared_with_their_share_of_all_weights(study: Results) -> None:
    question = "Do the feed-forward blocks hold as large a share of the restored weights as of all weights?"
    assert sum(published.weight_shares().values()) == pytest.approx(1)
    found = by_question(study)[question]
    assert "with the updates of each matrix shuffled 72.5\xa0%" in found.here
    assert found.agrees and found.paper == "Yes: 80.5\xa0% of the restored, 80.8\xa0% of all."
    # Most restored weights lie there, but far fewer than the blocks' share of all.
    rows = [
        replace(r, share={"mlp.up": 0.6, "attn.q": 0.4}.get(r.name, 0.0)) if r.percent < 100 else r
        for r in study.variants[0].distribution
    ]
    assert by_question(with_distribution(study, rows))[question].agrees is False
    rows = [r for r in study.variants[0].distribution if r.percent < 100]
    assert question not in by_question(with_distribution(study, rows))


@pytest.mark.parametrize(
    ("finding", "table"),
    [(concentrated, "concentration"), (layers_first, "distribution"), (feed_forward, "distribution")],
)
def test_where_the_change_is_agrees_only_where_shuffled_updates_differ(
    study: Results, finding: Callable[[VariantView], Finding | None], table: str
) -> None:
    (variant,) = study.variants

    def agrees(null: float | None) -> bool | None:
        rows = [replace(row, null=null and null * row.share) for row in getattr(variant, table)]
        found = finding(main(replace(study, variants=[replace(variant, **{table: rows})])))
        assert found is not None
        return found.agrees

    more_than_null = (
        None if finding is concentrated else True
    )  # a share below that of shuffled updates is no more
    assert (agrees(0.8), agrees(1.2), agrees(1.01), agrees(None)) == (True, more_than_null, None, None)


def test_a_share_is_beyond_the_null_where_the_training_sets_agree_on_it() -> None:
    def beyond(*shares: float, null: float | None = 0.6, above: bool | None = None) -> bool:
        return beyond_null([(f"bucket0-n25-s{i}", share, null) for i, share in enumerate(shares)], above)

    assert beyond(0.66, 0.65, 0.67) and not beyond(0.605, 0.604, 0.606)
    assert not beyond(0.75, 0.59, 0.58)
    assert not beyond(0.7, 0.7, null=None) and not beyond()
    assert beyond(0.66, 0.65, 0.67, above=True) and not beyond(0.66, 0.65, 0.67, above=False)
    # Random updates in bfloat16: rounding alone takes them below their shuffled copies.
    assert not beyond(0.72, 0.721, 0.719, null=0.74, above=True)


def test_one_training_set_is_not_beyond_the_null_whatever_its_sizes() -> None:
    sizes = [("bucket0-n25-s0", 0.66, 0.6), ("bucket0-n100-s0", 0.67, 0.6), ("bucket0-nall-s0", 0.65, 0.6)]
    assert not beyond_null(sizes)
    assert beyond_null([*sizes, ("bucket0-n25-s1", 0.66, 0.6), ("bucket1-n25-s0", 0.66, 0.6)])


def test_wording_of_numbers() -> None:
    assert (number(-0.04), number(-1.25, 2), number(1234.5, 0)) == ("0.0", "\N{MINUS SIGN}1.25", "1,234")
    assert (points(0.034), points(-0.002), points(0.0)) == ("+3.4", "\N{MINUS SIGN}0.2", "0.0")
    assert (percent(0.6221), restored(2.5), restored(10.0)) == ("62.2\xa0%", "2.5\xa0%", "10\xa0%")
    assert (listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"], "or")) == ("a", "a and b", "a, b or c")
