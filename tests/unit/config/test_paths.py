"""Relative paths in files are relative to the folder of the file, in files of every kind."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from sftlab.config.paths import anchored, is_hub_id
from sftlab.inference.catalogue import ModelEntry, read_entry
from sftlab.studies.knowledge.spec import StudySpec
from sftlab.studies.load import STUDY_PATHS, SURVEY_PATHS, load_study, load_survey, load_sweep
from sftlab.studies.survey.spec import SurveySpec

ENTRY = "path: weights/a\nparameters: 5\ndtype: bfloat16\ntensor_parallel: [1]\nmemory_gib: 1\n"
STUDY = "name: s\nfacts: {source: facts.jsonl, templates: ../topics.yaml}\nmodel: {path: base}\n"
SURVEY = """
name: s
bases: {folders: {a: {path: base, family: f}}}
data: {files: {d: {source: sets/d.jsonl}}}
benchmarks: {files: {b: {source: /abs/b.jsonl}, c: {source: ../c.jsonl}}}
runs: [{sizes: [4]}]
"""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with files of each kind; the current folder is another one."""
    folder = tmp_path / "project" / "configs"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (folder / "sweeps").mkdir(parents=True)
    (folder / "models" / "weights" / "a").mkdir(parents=True)
    (folder / "models" / "a.yaml").write_text(ENTRY)
    (folder / "sweeps" / "b.yaml").write_text(ENTRY.replace("weights/a", "b"))
    (folder / "study.yaml").write_text(STUDY)
    (folder / "survey.yaml").write_text(SURVEY)
    (folder / "sweeps" / "sweep.yaml").write_text(
        "name: w\nstudy: ../study.yaml\nset: {facts: {source: own.jsonl}}\naxes: {data: [0], size: [2], seed: [0]}\n"
    )
    return folder


def test_paths_of_a_study_are_relative_to_its_file(files: Path) -> None:
    study = load_study(files / "study.yaml")
    assert study.facts is not None and study.model is not None
    assert (study.facts.source, study.facts.templates, study.model.path) == (
        str(files / "facts.jsonl"),
        str(files.parent / "topics.yaml"),
        str(files / "base"),
    )
    (files / "pocket.yaml").write_text("name: s\npocket: {source: facts.zip}\n")
    pocket = load_study(files / "pocket.yaml").pocket
    assert pocket is not None and pocket.source == str(files / "facts.zip")


def test_paths_of_a_file_that_is_given_by_a_relative_path_are_seen_from_the_current_folder(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files.parent)
    study = load_study(Path("configs/study.yaml"))
    assert study.facts is not None
    assert (study.facts.source, study.facts.templates) == ("configs/facts.jsonl", "topics.yaml")


def test_paths_of_a_sweep_and_of_its_study_are_relative_to_their_files(files: Path) -> None:
    _, study = load_sweep(files / "sweeps" / "sweep.yaml")
    assert study.facts is not None and study.model is not None
    assert study.facts.source == str(files / "sweeps" / "own.jsonl")
    assert study.model.path == str(files / "base")


def test_a_sweep_finds_a_file_of_a_catalogue_in_its_folder_or_that_of_its_study(files: Path) -> None:
    sweep = files / "sweeps" / "sweep.yaml"
    for entry, path in (("b.yaml", files / "sweeps" / "b"), ("models/a.yaml", files / "models/weights/a")):
        text = sweep.read_text().replace("set: {facts: {source: own.jsonl}}", f"set: {{model: {entry}}}")
        (files / "sweeps" / "other.yaml").write_text(text)
        _, study = load_sweep(files / "sweeps" / "other.yaml")
        assert study.model is not None and study.model.path == str(path)


def test_paths_of_a_survey_are_relative_to_its_file(files: Path) -> None:
    survey = load_survey(files / "survey.yaml")
    assert survey.bases.folders["a"].path == str(files / "base")
    assert survey.data.files["d"].source == str(files / "sets/d.jsonl")
    assert survey.benchmarks.files["b"].source == "/abs/b.jsonl"
    assert survey.benchmarks.files["c"].source == str(files.parent / "c.jsonl")


def test_the_path_in_a_file_of_a_catalogue_is_relative_to_that_file(files: Path) -> None:
    assert read_entry(files / "models" / "a.yaml").path == str(files / "models/weights/a")


def test_a_path_in_an_option_is_relative_to_the_current_folder(files: Path) -> None:
    study = load_study(files / "study.yaml", ["model.path=base", "facts.source=../x.jsonl"])
    assert study.model is not None and study.facts is not None
    assert (study.model.path, study.facts.source) == ("base", "../x.jsonl")
    Path("mine.yaml").write_text(ENTRY)
    chosen = load_study(files / "study.yaml", ["model=mine.yaml"]).model
    assert chosen is not None and chosen.path == "weights/a"


def test_a_path_that_only_the_current_folder_has_is_taken_with_a_warning(
    files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Path("facts.jsonl").write_text("")
    with caplog.at_level(logging.WARNING):
        study = load_study(files / "study.yaml")
    assert study.facts is not None and study.facts.source == "facts.jsonl"
    (record,) = caplog.records
    assert f"{files / 'study.yaml'}: facts.source = facts.jsonl" in record.getMessage()
    assert record.getMessage().endswith("Write ../../elsewhere/facts.jsonl.")


def test_of_two_files_of_one_name_that_of_the_file_s_folder_is_taken(
    files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Path("facts.jsonl").write_text("")
    (files / "facts.jsonl").write_text("")
    study = load_study(files / "study.yaml")
    assert study.facts is not None and study.facts.source == str(files / "facts.jsonl")
    assert not caplog.records


def test_a_parent_of_a_linked_folder_is_the_parent_of_what_it_leads_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a" / "b")
    found = Path(anchored("../x", tmp_path / "link" / "s.yaml", "f"))
    assert found.resolve() == tmp_path / "a" / "x"


@pytest.mark.parametrize("text", ["/abs/x", "s3://bucket/x", "", "org/name", "org/name@main"])
def test_what_is_no_relative_path_stays_as_it_is(text: str, tmp_path: Path) -> None:
    assert anchored(text, tmp_path / "s.yaml", "f") == text


def test_a_home_is_expanded(tmp_path: Path) -> None:
    assert anchored("~/x", tmp_path / "s.yaml", "f") == os.path.expanduser("~/x")  # noqa: PTH111


def test_a_wrong_path_below_a_folder_is_no_id_of_a_hub(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    assert anchored("models/bse", tmp_path / "s.yaml", "f") == str(tmp_path / "models" / "bse")
    assert anchored("models/bse@main", tmp_path / "s.yaml", "f") == "models/bse@main"


def test_a_folder_comes_before_an_id_of_a_hub(tmp_path: Path) -> None:
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert anchored("org/name", tmp_path / "s.yaml", "f") == str(tmp_path / "org" / "name")


@pytest.mark.parametrize(
    "text",
    [
        "name",
        "./name",
        "../name",
        "a/b/c",
        "a/..",
        "org/name@",
        "org/na me",
        "org/name.yaml/x",
        "~/x",
        "sets/a.jsonl",
    ],
)
def test_what_has_not_the_form_of_a_hub_s_id_is_none(text: str) -> None:
    assert not is_hub_id(text)


def _texts(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The keys of fields of a record that are named as paths are."""
    for name, field in model.model_fields.items():
        if name in ("path", "source", "templates", "include"):
            yield prefix + name
        kinds: list[Any] = [field.annotation, *get_args(field.annotation)]
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                star = "*." if field.annotation is not kind and dict in _origins(field.annotation) else ""
                yield from _texts(kind, f"{prefix}{name}.{star}")


def _origins(annotation: Any) -> set[Any]:
    from typing import get_origin

    return {get_origin(annotation)}


@pytest.mark.parametrize(
    ("model", "known"),
    [(StudySpec, STUDY_PATHS), (SurveySpec, SURVEY_PATHS), (ModelEntry, ("path",))],
)
def test_every_path_of_a_record_is_among_those_that_are_relative_to_the_file(
    model: type[BaseModel], known: tuple[str, ...]
) -> None:
    assert sorted(set(_texts(model))) == sorted(known)
