"""What a study reads from outside, and files that are given in the wrong place."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from sftlab.cli.study import open_study
from sftlab.cli.sweep import open_sweep
from sftlab.errors import UserError
from sftlab.facts.prepare import read_source
from sftlab.facts.templates import published_topics, study_topics
from sftlab.studies.knowledge.plan import Plan
from sftlab.studies.knowledge.sources import resolve
from sftlab.studies.knowledge.spec import StudySpec
from sftlab.studies.knowledge.stages.facts import limited
from sftlab.studies.load import load_runtime, load_study, load_sweep
from tests.support.refusals import refused

CONFIGS = Path(__file__).parents[4] / "jobs" / "configs"
TOPICS = """
- {topic: A, question: "Who is {subject}?", templates: ["{subject} is", "{subject} was"]}
- {topic: B, question: "Where is {subject}?", templates: ["{subject} lies in"]}
- {topic: C, domain: out-of-domain, question: "What is {subject}?", templates: ["a {subject} is"]}
"""


def own_facts(folder: Path, limit: dict[str, int]) -> StudySpec:
    """A study of own facts: of topic A 5 to train on and 3 to test, of B 2 and 1, of C 4 to test."""
    counts = {("A", "train"): 5, ("A", "test"): 3, ("B", "train"): 2, ("B", "test"): 1, ("C", "test"): 4}
    rows = [
        {"subject": f"{topic}{split}{i}", "object": "o", "topic": topic, "split": split}
        for (topic, split), count in counts.items()
        for i in range(count)
    ]
    (folder / "facts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "topics.yaml").write_text(TOPICS)
    facts = {"source": str(folder / "facts.jsonl"), "templates": str(folder / "topics.yaml"), "limit": limit}
    model = {"path": str(folder / "model"), "parameters": 10}
    return StudySpec.model_validate({"name": "t", "facts": facts, "model": model})


@pytest.mark.parametrize(
    ("limit", "counts", "prompts"),
    [
        ({}, {"train": 7, "test": 4, "test_ood": 4, "dev": 0, "dev_ood": 0}, 2 * 8 + 3 + 4),
        ({"train": 5, "test_ood": 1}, {"train": 5, "test": 4, "test_ood": 1}, 2 * (3 + 3) + (2 + 1) + 1),
        ({"train": 6, "test": 0}, {"train": 5, "test": 0}, 2 * 3 + 2 + 4),
    ],
)
def test_a_plan_counts_own_facts_and_their_templates(
    tmp_path: Path, limit: dict[str, int], counts: dict[str, int], prompts: int
) -> None:
    spec = own_facts(tmp_path, limit)
    sources = resolve(spec, tmp_path / "store")
    assert {split: sources.fact_counts[split] for split in counts} == counts
    (mastery,) = [cost for step, cost in Plan(spec, sources).steps() if step.stage == "mastery"]
    assert mastery.completions == prompts * spec.mastery.samples
    tables, _ = read_source(tmp_path / "facts.jsonl", tmp_path / "topics.yaml")
    for split, most in limit.items():  # as many as the facts stage keeps
        assert limited(tables[split], most, 0).num_rows == sources.fact_counts[split]


def test_a_plan_counts_an_archive_whose_topics_are_chosen_by_templates(tmp_path: Path) -> None:
    for split, count in {"train": 5, "test": 3, "dev": 2}.items():
        rows = [{"question": f"Who is {i}?", "answers": ["o"]} for i in range(count)]
        (tmp_path / "eq" / split).mkdir(parents=True)
        for topic in ("A", "Z"):
            (tmp_path / "eq" / split / f"{topic}.{split}.json").write_text(json.dumps(rows))
    (tmp_path / "topics.yaml").write_text("\n".join(TOPICS.splitlines()[:2]))
    source, templates = str(tmp_path / "eq"), str(tmp_path / "topics.yaml")
    facts = {"source": source, "templates": templates, "limit": {"train": 4}}
    model = {"path": str(tmp_path / "model"), "parameters": 10}
    spec = StudySpec.model_validate({"name": "t", "facts": facts, "model": model})
    sources = resolve(spec, tmp_path / "store")
    counts = {"train": 4, "test": 3, "test_ood": 0, "dev": 2, "dev_ood": 0}
    assert (sources.fact_counts, sources.templates) == (counts, 2)


def test_wrong_own_facts_are_told_by_the_plan(tmp_path: Path) -> None:
    spec = own_facts(tmp_path, {})
    (tmp_path / "facts.jsonl").write_text('{"subject": "a"}')
    with pytest.raises(UserError, match=r"facts.jsonl, line 1, field 'object'"):
        resolve(spec, tmp_path / "store")


def test_facts_that_are_read_otherwise_than_before_are_other_facts(tmp_path: Path) -> None:
    study = own_facts(tmp_path, {})
    plain = resolve(study, tmp_path / "store").facts
    assert set(plain) == {"source", "templates"}
    file = tmp_path / "facts.jsonl"
    file.write_text(file.read_text().replace('"o"', '"Lome\\u0301"'))
    composed = resolve(study, tmp_path / "store").facts
    assert composed["reading"] == "2" and composed["source"] != plain["source"]
    file.write_text(file.read_text().replace('"Lome\\u0301"', '"Lomé"'))
    assert resolve(study, tmp_path / "store").facts["reading"] == "3"


def test_a_limit_below_zero_is_refused() -> None:
    with refused(r"greater than or equal to 0 \(found -1\)", place="facts.limit.train", value=-1):
        load_study(CONFIGS / "llama3-8b.yaml", ["facts.limit={train: -1}"])


def test_a_file_of_another_kind_is_called_by_its_name() -> None:
    study, runtime, sweep = (
        CONFIGS / name for name in ("tiny.yaml", "runtimes/laptop-2cpu.yaml", "sweeps/tiny.yaml")
    )
    study_taken = "is a study file; `sftlab run`, `sftlab plan`, `sftlab report` and `sftlab track` take it"
    for load, path, kind in (
        (load_study, runtime, "is a runtime file; give it by --runtime"),
        (load_runtime, study, study_taken),
        (load_sweep, study, study_taken),
        (load_study, sweep, "is a sweep file; `sftlab sweep`, `sftlab report` and `sftlab track` take it"),
        (load_sweep, runtime, "is a runtime file"),
    ):
        with pytest.raises(UserError, match=rf"{path.name}: {kind}"):
            load(path, ["training_sets.sizes=[3]"])


@pytest.mark.parametrize(("key", "hint"), [("rate", "known keys are"), ("sft.epoch", "mean 'epochs'")])
def test_a_key_is_guessed_only_where_one_is_near(key: str, hint: str) -> None:
    with pytest.raises(UserError, match=hint):
        load_study(CONFIGS / "tiny.yaml", [f"{key}=1"])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("pocket.in_domain=[P9999]", "'P9999' is not available"),
        ("pocket.in_domain=[P50]", "'P50' is listed twice; keep it in one of the two domains"),
        (
            "training_sets.sizes=[40, 41]",
            "training_sets.sizes: a training set of 41 facts cannot be drawn from 40 training facts",
        ),
    ],
)
def test_a_study_that_cannot_be_drawn_is_refused_before_anything_is_built(
    tmp_path: Path, setting: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        open_study(CONFIGS / "tiny.yaml", None, tmp_path, [setting])


def test_a_sweep_that_cannot_be_drawn_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    with refused("a training set of 41 facts cannot be drawn from 40", place="axes.size"):
        open_sweep(CONFIGS / "sweeps" / "tiny.yaml", None, tmp_path, ["axes.size=[41]"])


def test_topics_that_are_named_in_domain_are_the_only_ones_to_train_on(tmp_path: Path) -> None:
    for split, count in {"train": 5, "test": 3, "dev": 2}.items():
        (tmp_path / "eq" / split).mkdir(parents=True)
        for topic in ("A", "Z"):
            rows = [{"question": f"Who is {topic}{i}?", "answers": ["o"]} for i in range(count)]
            (tmp_path / "eq" / split / f"{topic}.{split}.json").write_text(json.dumps(rows))
    line = "- {topic: %s, question: 'Who is {subject}?', templates: ['{subject} is'], table: 13}"
    (tmp_path / "topics.yaml").write_text(
        "\n".join([line % "A", line % "Z"])
    )  # in domain both, as the default is
    source, templates = str(tmp_path / "eq"), str(tmp_path / "topics.yaml")
    model = {"path": str(tmp_path / "model"), "parameters": 10}

    def spec_of(**facts: Any) -> StudySpec:
        given = {"source": source, "templates": templates, **facts}
        return StudySpec.model_validate({"name": "t", "facts": given, "model": model})

    spec = spec_of(in_domain=["Z"])
    counts = resolve(spec, tmp_path / "store").fact_counts
    assert counts == {"train": 5, "test": 3, "test_ood": 3, "dev": 2, "dev_ood": 2}
    assert resolve(spec_of(), tmp_path / "store").fact_counts["train"] == 10
    tables, topics = read_source(tmp_path / "eq", tmp_path / "topics.yaml", ["Z"])
    assert tables["train"]["topic"].unique().to_pylist() == ["Z"]
    assert [topic.domain for topic in topics.values()] == ["out-of-domain", "in-domain"]
    # The order of the names is no other study, and without them the ids are those of a study that never had the key.
    both = [
        Plan(spec_of(in_domain=names), resolve(spec, tmp_path)).facts.id for names in (["A", "Z"], ["Z", "A"])
    ]
    assert both[0] == both[1] != Plan(spec, resolve(spec, tmp_path)).facts.id
    with refused(
        "there is no topic 'Zz'", value="Zz", advice="the nearest of the 2 topics are Z, A"
    ) as error:
        resolve(spec_of(in_domain=["Zz"]), tmp_path / "store")
    assert str(error.value).startswith("facts.in_domain: ")


def test_the_packaged_topics_are_a_file_of_topics(tmp_path: Path) -> None:
    packaged = files("sftlab.facts").joinpath("data/mapping_templates.json").read_text(encoding="utf-8")
    (tmp_path / "topics.json").write_text(packaged)
    assert study_topics(tmp_path / "topics.json") == published_topics()
