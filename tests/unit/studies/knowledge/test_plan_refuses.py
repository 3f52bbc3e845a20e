"""What a later stage would refuse is refused by the plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from sftlab.cli.study import open_study, study_plan
from sftlab.cli.sweep import sweep_plan
from sftlab.errors import UserError
from sftlab.execution.progress import SilentProgress
from sftlab.facts.table import SPLITS, read_facts
from sftlab.facts.templates import Topic
from sftlab.inference.model_check import context_length
from sftlab.measurements.mastery import mastery_schema
from sftlab.studies.knowledge.build import KnowledgeBuild
from sftlab.studies.knowledge.check import check_context
from sftlab.studies.knowledge.stages.facts import build_facts
from sftlab.studies.knowledge.stages.mastery import FILE, write_mastery
from sftlab.studies.knowledge.stages.training_sets import check_training_sets, sizes_text
from sftlab.studies.load import load_study
from tests.support.refusals import refused

CONFIGS = Path(__file__).parents[4] / "jobs" / "configs"
TINY = CONFIGS / "tiny.yaml"
TOPICS = """- {topic: A, domain: in-domain, question: "Which A is {subject}?", templates: ["{subject} is"]}
- {topic: B, domain: out-of-domain, question: "Which B is {subject}?", templates: ["{subject} has"]}
"""


class Words:
    """A tokenizer with a token for every word."""

    bos_token_id = 0

    def __call__(self, texts: list[str], **_: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [[1] * len(text.split()) for text in texts]}


def own_study(folder: Path, splits: dict[tuple[str, str], int], **fields: Any) -> Path:
    """A study of own facts: so many facts of each topic and split."""
    rows = [
        {"subject": f"{topic}{split}{i}", "object": f"answer {i}", "topic": topic, "split": split}
        for (topic, split), count in splits.items()
        for i in range(count)
    ]
    (folder / "facts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "topics.yaml").write_text(TOPICS)
    facts = {"source": str(folder / "facts.jsonl"), "templates": str(folder / "topics.yaml")}
    facts |= fields.pop("facts", {})
    model = {"path": str(folder / "model"), "parameters": 10}
    grid = {"buckets": [0, 4], "sizes": [4], "seeds": [0]}
    study = {"name": "own", "facts": facts, "model": model, "training_sets": grid} | fields
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study))
    return path


def build_of(path: Path, folder: Path) -> KnowledgeBuild:
    plan, runtime, store = open_study(path, None, folder / "store", [])
    return KnowledgeBuild(plan, store, runtime, SilentProgress())


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("restore.layers=0-9", r"restore\.layers: the pocket model .* include layer \d, but the model has"),
        ("sft.freeze_layers=7", r"sft\.freeze_layers: the pocket model .* include layer 7"),
    ],
)
def test_layers_beyond_the_model_are_refused(tmp_path: Path, setting: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        study_plan(TINY, None, tmp_path / "store", [setting], False)
    sweep = tmp_path / "sweep.yaml"
    field, value = setting.split(".")[1].split("=")
    method = {"name": "restore" if field == "layers" else "freeze-layers", "layers": value}
    axes = {"data": [0], "size": [2], "seed": [0], "strategy": [method]}
    sweep.write_text(yaml.safe_dump({"name": "s", "study": str(TINY), "axes": axes}))
    with pytest.raises(UserError, match=message):
        sweep_plan(sweep, None, tmp_path / "store", [])


@pytest.mark.parametrize(
    ("room", "refused", "noted"), [(8, False, 0), (7, False, 0), (6, False, 1), (5, True, 0)]
)
def test_a_context_too_short_for_every_fact_is_refused(room: int, refused: bool, noted: int) -> None:
    """`room`: tokens beside those of the completion; "the name of a is" has 6 with its beginning of sequence."""
    study = load_study(TINY)
    topics = {
        "A": Topic("A", "in-domain", "Which is {subject}?", ("{subject} is", "the name of {subject} is"))
    }
    limit = study.mastery.max_tokens + room
    if refused:
        with pytest.raises(UserError, match=rf"prompt with mastery\.max_tokens takes {limit + 1}; lower"):
            check_context(study, topics, Words(), limit)
    else:
        assert len(check_context(study, topics, Words(), limit)) == noted
    assert check_context(study, topics, Words(), None) == []


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({"max_position_embeddings": 128}, 128),
        ({"n_positions": 64}, 64),
        ({"text_config": {"max_position_embeddings": 32}}, 32),
        ({}, None),
        ({"max_position_embeddings": None}, None),
    ],
)
def test_the_context_of_a_model_is_what_its_config_names(
    tmp_path: Path, config: dict[str, Any], length: int | None
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert context_length(str(tmp_path)) == length


def scored(build: KnowledgeBuild, buckets: list[int | None]) -> None:
    """Commit facts, and mastery in which the training facts have these buckets; None is a row with an error."""
    build_facts(build)
    folder, rows, splits = build.path(build.plan.facts), [], []
    for split in SPLITS:
        for n, fact in enumerate(read_facts(folder, split).to_pylist()):
            bucket = buckets[n % len(buckets)] if split == "train" else 0
            row = {"fact_id": fact["fact_id"], "topic": fact["topic"], "samples": 4, "tokens": 1}
            row |= (
                {"error": "too long: prompt and completion take 99 tokens of 32"}
                if bucket is None
                else {"hits": [bucket], "r": bucket / 4, "bucket": bucket}
            )
            rows.append(row)
            splits.append(split)
    table = pa.Table.from_pylist(rows, schema=mastery_schema())
    path = build.path(build.plan.mastery)
    path.mkdir(parents=True)
    write_mastery(iter([table]), 32, iter(splits), path / FILE)
    build.commit(build.plan.mastery)


def test_all_sets_that_cannot_be_drawn_are_named_and_a_margin_counts_what_it_leaves_out(
    tmp_path: Path,
) -> None:
    counts = {("A", "train"): 12, ("A", "dev"): 1, ("A", "test"): 1}
    grid = {"buckets": [0, 4], "sizes": [2, 6], "seeds": [0]}
    build = build_of(own_study(tmp_path, counts, training_sets=grid), tmp_path)
    scored(build, [0, 4, 4])  # four of bucket 0, eight of bucket 4
    with refused("a set of 6 facts needs 6 of it, but there are 4", place="bucket 0, topic A", value=4):
        check_training_sets(build)
    grid["sizes"] = [2, 9]
    build = build_of(own_study(tmp_path, counts, training_sets=grid), tmp_path)
    with refused("2 of 4 training sets cannot be drawn; nothing was trained yet", value=2) as caught:
        check_training_sets(build)
    places = [str(error.place) for error in caught.value.others]
    assert places == ["  bucket0-n9-s0: bucket 0, topic A", "  bucket4-n9-s0: bucket 4, topic A"]
    # Of one template with four hits of four, bucket 4 comes again with 0.9 ** 4; facts of bucket 0 are all kept.
    build = build_of(
        own_study(tmp_path, counts, training_sets=grid | {"sizes": [2], "margin": 0.9}), tmp_path
    )
    with refused(
        place="bucket 4, topic A",
        advice="training_sets.margin leaves out 8 training facts whose bucket is less sure",
    ):
        check_training_sets(build)


def test_sizes_that_the_scored_buckets_cannot_give_are_refused_with_the_cause(tmp_path: Path) -> None:
    counts = {("A", "train"): 12, ("A", "dev"): 1, ("A", "test"): 1}
    path = own_study(tmp_path, counts)
    build = build_of(path, tmp_path)
    assert sizes_text(build) == ""
    check_training_sets(build)  # nothing is known before mastery is scored
    scored(build, [0, 4, None])
    check_training_sets(build)  # four of each bucket
    lines = sizes_text(build).splitlines()
    assert lines[0].split()[:2] == ["training", "facts"] and lines[0].endswith("bucket 4     mixed")
    assert lines[1].split() == ["A", "4", "0", "0", "0", "4"]
    assert lines[2].split() == ["largest", "set", "4", "0", "0", "0", "4", "1"]
    assert lines == study_plan(path, None, tmp_path / "store", [], False).text.splitlines()[-3:]
    larger = build_of(own_study(tmp_path, counts, training_sets={"buckets": [4], "sizes": [5]}), tmp_path)
    with refused(
        "a set of 5 facts needs 5 of it, but there are 4",
        place="bucket 4, topic A",
        value=4,
        advice="4 training facts could not be scored; most often: too long",
    ):
        check_training_sets(larger)


def test_facts_that_are_not_there_have_no_known_cost(tmp_path: Path) -> None:
    path = own_study(tmp_path, {("A", "train"): 8, ("A", "dev"): 1})
    (tmp_path / "facts.jsonl").unlink()
    out = study_plan(path, None, tmp_path / "store", [], False).text
    assert "Not here yet" in out and "how many there are is not known" in out
    assert build_of(path, tmp_path).plan.sources.fact_counts["train"] == 0


@pytest.mark.parametrize("split", ["test", "test_ood", "train", "dev"])
def test_a_limit_of_zero_and_splits_without_facts_are_built(tmp_path: Path, split: str) -> None:
    counts = {("A", "train"): 4, ("A", "dev"): 2, ("A", "test"): 2, ("B", "dev"): 1}
    study = own_study(tmp_path, counts, facts={"limit": {split: 0, "test_ood": 3}})
    if split == "train":
        with refused("a training set of 4 facts cannot be drawn from 0 training facts"):
            build_of(study, tmp_path)
        return
    build = build_of(study, tmp_path)
    build_facts(build)
    folder = build.path(build.plan.facts)
    assert {name: read_facts(folder, name).num_rows for name in SPLITS} == {
        "train": 4, "dev": 2, "test": 2, "dev_ood": 1, "test_ood": 0
    } | {split: 0}  # fmt: skip
