"""The only reader of study, sweep and runtime files, and the only file that knows all studies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from sftlab.config.documents import load_yaml
from sftlab.config.overrides import Origin, leaves, origin_of, override, read_yaml, validated
from sftlab.config.paths import anchor
from sftlab.errors import UserError
from sftlab.execution.runtime import Runtime
from sftlab.inference.catalogue import read_entry
from sftlab.strategies import load_plugins
from sftlab.studies.knowledge.spec import StudySpec, check_models
from sftlab.studies.knowledge.sweep.spec import SweepSpec
from sftlab.studies.survey.spec import SurveySpec, rooted

RUNTIME_PREFIX = "runtime."
SWEEP_PREFIX = "set."  # what a sweep sets in its study

# Fields that hold a path (`config.paths`). `model` of a study may name a file of a catalogue (`_overridden`).
STUDY_PATHS = ("facts.source", "facts.templates", "model.path", "pocket.source")
SURVEY_PATHS = (
    "bases.folders.*.path",
    "data.files.*.source",
    "benchmarks.files.*.source",
    "benchmarks.judged.*.source",
    "benchmarks.code.files.*.source",
    "benchmarks.harness.include",
)

# The kinds of files, and how a file of another kind is to be given.
KINDS: dict[type[BaseModel], str] = {
    StudySpec: "a study file; `sftlab run`, `sftlab plan`, `sftlab report` and `sftlab track` take it",
    SweepSpec: "a sweep file; `sftlab sweep`, `sftlab report` and `sftlab track` take it",
    SurveySpec: "a survey file; `sftlab survey`, `sftlab status`, `sftlab report` and `sftlab track` take it",
    Runtime: "a runtime file; give it by --runtime",
}


def load_study(path: Path, overrides: Sequence[str] = ()) -> StudySpec:
    """Read and check a study file; `overrides` are `a.b=c` texts, those of `runtime.` are ignored."""
    mine = [text for text in overrides if not text.startswith(RUNTIME_PREFIX)]
    document = _read_study(path)
    origin = origin_of(str(path), document, mine)
    return _study(path, _overridden(document, mine, path.parent), origin)


def _read_study(path: Path) -> dict[str, Any]:
    document = read_yaml(path, StudySpec, KINDS)
    anchor(document, STUDY_PATHS, path)
    return document


def _overridden(document: dict[str, Any], overrides: Sequence[str], folder: Path) -> dict[str, Any]:
    """A study's document with its overrides, and the model of a catalogue written out, in place.

    `model` may be the path of a file of a catalogue (`inference.catalogue`), relative to the study's folder; in an
    override also to the current folder. Fields of the model and of the engine that the study or an override sets come
    before those of the file.
    """
    named = [text for text in overrides if text.partition("=")[0] == "model"]
    override(document, named)
    entry = document.get("model")
    if isinstance(entry, str):
        there = folder / entry
        found = read_entry(Path(entry) if named and Path(entry).is_file() and not there.exists() else there)
        document["model"] = found.model
        engine = document.setdefault("engine", {})
        if isinstance(engine, dict):
            engine.setdefault("dtype", found.dtype)
    return override(document, [text for text in overrides if text not in named])


def _study(path: Path, document: dict[str, Any], source: Origin) -> StudySpec:
    """A study's document as a record; the strategies that it may name are those of its plugins too."""
    plugins = document.get("plugins")
    if isinstance(plugins, list) and all(isinstance(module, str) for module in plugins):
        load_plugins(plugins, path.parent)
    return validated(StudySpec, document, source)


def load_sweep(path: Path, overrides: Sequence[str] = ()) -> tuple[SweepSpec, StudySpec]:
    """Read and check a sweep file and the study that it varies; `overrides` as for a study, of the sweep's keys."""
    mine = [text for text in overrides if not text.startswith(RUNTIME_PREFIX)]
    document = read_yaml(path, SweepSpec, KINDS)
    for text in mine:
        top = text.partition("=")[0].partition(".")[0]
        if top in StudySpec.model_fields and top not in SweepSpec.model_fields:
            raise UserError(
                f"{top!r} is a key of the sweep's study",
                place=f"--set {text}",
                value=top,
                advice=f"use --set set.{text}",
            )
    origin = origin_of(str(path), document, mine)
    _anchor_sweep(document, path)
    sweep = validated(SweepSpec, override(document, mine), origin)
    load_plugins(sweep.plugins, path.parent)  # the study may name their strategies too
    study = path.parent / sweep.study
    document = _read_study(study)
    source = f"{study} with `set` of {path}" if sweep.set else str(study)
    inner = [text.removeprefix(SWEEP_PREFIX) for text in mine if text.startswith(SWEEP_PREFIX)]
    origin = origin_of(source, document, inner, SWEEP_PREFIX)
    settings = [f"{key}={json.dumps(value)}" for key, value in leaves(sweep.set)]
    varied = _study(study, _overridden(document, settings, study.parent), origin)
    varied = varied.model_copy(update={"gradients": None})  # a stage of studies alone
    try:
        check_models(sweep.models(len(varied.restore.percents)))
    except ValueError as error:
        raise UserError(str(error), place=path) from None
    return sweep, varied


def _anchor_sweep(document: dict[str, Any], path: Path) -> None:
    """Paths that a sweep sets in its study, in place; a file of a catalogue may be in the study's folder instead."""
    anchor(document, [f"{SWEEP_PREFIX}{key}" for key in STUDY_PATHS], path)
    settings = document.get("set")
    entry = settings.get("model") if isinstance(settings, dict) else None
    if isinstance(settings, dict) and isinstance(entry, str) and (path.parent / entry).is_file():
        settings["model"] = str((path.parent / entry).resolve())


def load_survey(path: Path, overrides: Sequence[str] = ()) -> SurveySpec:
    """Read and check a survey file; `overrides` as for a study."""
    mine = [text for text in overrides if not text.startswith(RUNTIME_PREFIX)]
    document = read_yaml(path, SurveySpec, KINDS)
    anchor(document, ("root",), path)
    if "root" not in document and not any(text.startswith("root=") for text in mine):
        anchor(document, SURVEY_PATHS, path)
    return rooted(validated(SurveySpec, override(document, mine), origin_of(str(path), document, mine)))


def load_runtime(path: Path | None, overrides: Sequence[str] = ()) -> Runtime:
    """Read and check a runtime file (all defaults without one); `overrides` as `runtime.a.b=c` texts."""
    mine = [t.removeprefix(RUNTIME_PREFIX) for t in overrides if t.startswith(RUNTIME_PREFIX)]
    document = read_yaml(path, Runtime, KINDS) if path else {}
    origin = origin_of(str(path or "runtime"), document, mine, RUNTIME_PREFIX)
    return validated(Runtime, override(document, mine), origin)


def is_survey(path: Path) -> bool:
    """Whether a file is a survey's: it names bases. Raises UserError where it cannot be read."""
    document = load_yaml(path, "give a YAML file.")
    return isinstance(document, dict) and "bases" in document


def is_sweep(path: Path) -> bool:
    """Whether a file is a sweep's and no study's. Raises UserError where it cannot be read."""
    document = load_yaml(path, "give a YAML file.")
    return isinstance(document, dict) and "study" in document
