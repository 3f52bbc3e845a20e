"""Ids of a hub in place of folders: fetched from a hub on loopback, found again in the cache, refused in one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from huggingface_hub import constants

from sftlab.cli import options
from sftlab.cli.common import local_folder
from sftlab.errors import UserError
from sftlab.store.artifact import Store
from sftlab.store.hub import fetch, is_on_hub, name_of, origin_of
from sftlab.studies.knowledge.plan import Plan
from sftlab.studies.knowledge.sources import fetched, resolve
from sftlab.studies.knowledge.spec import StudySpec
from sftlab.studies.survey import sources as survey_sources
from sftlab.studies.survey.spec import SurveySpec
from tests.support.hub_server import Hub, serving

MODEL = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": (2).to_bytes(8, "little") + b"{}",
    "tokenizer.json": b"{}",
    "LICENSE": b"free",
    "pytorch_model.bin": b"pickle",
    "original/consolidated.safetensors": b"another copy",
    "modeling_own.py": b"raise SystemExit",
}
FACTS = b"".join(
    json.dumps({"subject": f"s{n}", "object": "o", "topic": "P17", "split": split}).encode() + b"\n"
    for n, split in enumerate(["train", "train", "dev", "test"])
)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub on loopback, and an empty cache; the current folder is empty too."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with serving() as found:
        _use(monkeypatch, found.address, tmp_path / "cache", offline=False)
        yield found


def _use(monkeypatch: pytest.MonkeyPatch, address: str, cache: Path, offline: bool) -> None:
    from huggingface_hub.utils import _http

    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    _http.close_session()


def test_a_model_is_fetched_once_without_pickles_code_and_copies(hub: Hub) -> None:
    commit = hub.put("org/name", MODEL)
    seen: list[tuple[int, int]] = []
    folder = fetch("org/name", report=lambda done, total: seen.append((done, total)))
    assert folder is not None and origin_of(folder) == f"org/name@{commit}" and name_of(folder) == "org/name"
    assert {file.name for file in folder.iterdir()} == {
        *("config.json", "model.safetensors", "tokenizer.json", "LICENSE")
    }
    assert (folder / "model.safetensors").read_bytes() == MODEL["model.safetensors"]
    assert seen and seen[-1][0] == seen[-1][1] > 0
    asked = len(hub.asked)
    assert fetch("org/name") == folder
    assert not [line for line in hub.asked[asked:] if "/resolve/" in line]


def test_a_revision_is_a_branch_a_tag_or_a_commit(hub: Hub) -> None:
    commits = {r: hub.put("org/name", MODEL | {"LICENSE": r.encode()}, revision=r) for r in ("main", "v1")}
    for text, revision, wanted in (
        ("org/name", None, "main"),
        ("org/name@v1", None, "v1"),
        ("org/name", "v1", "v1"),
        ("org/name@main", "v1", "main"),
        (f"org/name@{commits['v1']}", None, "v1"),
    ):
        folder = fetch(text, revision=revision)
        assert folder is not None and (folder / "LICENSE").read_text() == wanted
        assert folder.name == commits[wanted]


def test_without_a_hub_the_cache_is_read(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.put("org/name", MODEL)
    folder = fetch("org/name")
    asked = len(hub.asked)
    assert fetch("org/name", online=False) == folder and fetch("org/other", online=False) is None
    _use(monkeypatch, hub.address, tmp_path / "cache", offline=True)
    assert fetch("org/name") == folder
    with pytest.raises(
        UserError, match=r"^org/other: .* HF_HUB_OFFLINE is set, so no hub is asked\. [^\n]*$"
    ):
        fetch("org/other")
    assert len(hub.asked) == asked
    _use(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache", offline=False)
    assert fetch("org/name") == folder
    with pytest.raises(UserError, match=r"^org/other: [^\n]* does not answer[^\n]*$"):
        fetch("org/other")


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("org/none", "model", "has no model of this name"),
        ("org/none", "dataset", "has no data set of this name"),
        ("org/name@v9", "model", "has no such revision of org/name"),
        ("org/many", "dataset", r"has 2 files .* \(a\.jsonl, b/c\.parquet\); name one, as org/many:a\.jsonl"),
        ("org/empty", "dataset", "has 0 files"),
        ("org/many:x.jsonl", "dataset", r"has no file x\.jsonl"),
    ],
)
def test_a_miss_is_one_line(hub: Hub, text: str, kind: Any, says: str) -> None:
    hub.put("org/name", MODEL)
    hub.put("org/many", {"a.jsonl": b"{}", "b/c.parquet": b"", "README.md": b""}, "datasets")
    hub.put("org/empty", {"README.md": b""}, "datasets")
    with pytest.raises(UserError, match=says) as error:
        fetch(text, kind)
    assert "\n" not in str(error.value) and str(error.value).startswith(text.partition(":")[0])


def test_a_file_of_a_data_set_is_fetched_alone(hub: Hub) -> None:
    commit = hub.put("org/many", {"a.jsonl": b"1", "b/c.parquet": b"2"}, "datasets")
    file = fetch("org/many@main:b/c.parquet", "dataset")
    assert file is not None and file.read_bytes() == b"2" and not (file.parents[1] / "a.jsonl").exists()
    assert origin_of(file) == f"org/many@{commit}:b/c.parquet"


@dataclass(frozen=True)
class Given:
    """Options of a command."""

    model: Annotated[Path, typer.Option(), options.MODEL]
    data: Annotated[list[Path] | None, typer.Option(), options.DATA] = None
    output: Annotated[Path | None, typer.Option()] = None


SEEN: list[Given] = []


@options.expanded
def keep(given: Given) -> None:
    SEEN.append(given)


def test_commands_get_what_is_fetched_in_place_of_ids_and_their_other_paths_as_they_are(hub: Hub) -> None:
    hub.put("org/packed", {"config.json": b"{}", "weights.delta.json": b"{}", "a.delta": b"1"})
    hub.put("org/rows", {"a.jsonl": b"{}"}, "datasets")
    call: Any = keep
    call(model=Path("org/packed"), data=[Path("own.jsonl"), Path("org/rows")], output=Path("org/out"))
    call(model=Path("base"), data=None, output=None)
    first, second = SEEN
    assert {file.name for file in first.model.iterdir()} == {"config.json", "weights.delta.json", "a.delta"}
    assert first.data is not None and first.data[0] == Path("own.jsonl")
    assert first.data[1].read_bytes() == b"{}" and first.output == Path("org/out")
    assert second == Given(Path("base"))


def test_a_folder_of_that_name_is_taken_and_no_hub_is_asked(hub: Hub) -> None:
    Path("org/name").mkdir(parents=True)
    assert not is_on_hub("org/name") and local_folder(Path("org/name")) == Path("org/name")
    for path in ("base", "/org/other", "a/b/c", "../a"):
        assert local_folder(Path(path)) == Path(path)
    assert local_folder(Path("org/mistyped")) == Path("org/mistyped") and not is_on_hub("org/mistyped")
    assert is_on_hub("org/mistyped@main") and is_on_hub("other/name")
    assert hub.asked == []


def test_a_study_has_the_commit_of_its_model_and_its_results_are_those_of_the_folder(
    hub: Hub, tmp_path: Path
) -> None:
    commit, data = hub.put("org/base", MODEL), hub.put("org/facts", {"facts.jsonl": FACTS}, "datasets")
    spec = StudySpec.model_validate(
        {"name": "s", "facts": {"source": "org/facts"}, "model": {"path": "org/base"}}
    )
    assert fetched(spec, online=False) == spec and hub.asked == []
    found = fetched(spec, online=True)
    assert found.model is not None and found.model.revision == commit and found.facts is not None
    store = Store(tmp_path / "store")
    plan = Plan(found, resolve(found, store.root))
    assert plan.outside.missing() == []
    store.path(plan.mastery).mkdir(parents=True)
    assert store.commit(plan.mastery).provenance["model from hub"] == f"org/base@{commit}"
    store.path(plan.facts).mkdir(parents=True)
    assert store.commit(plan.facts).provenance["source from hub"] == f"org/facts@{data}:facts.jsonl"
    (tmp_path / "facts.jsonl").write_bytes(FACTS)
    (tmp_path / "base").mkdir()
    for file in Path(found.model.path).iterdir():
        (tmp_path / "base" / file.name).write_bytes(file.read_bytes())
    local = found.model_copy(
        update={
            "facts": found.facts.model_copy(update={"source": str(tmp_path / "facts.jsonl")}),
            "model": found.model.model_copy(update={"path": str(tmp_path / "base"), "revision": None}),
        }
    )
    again = Plan(local, resolve(local, store.root))
    assert [step.id for step, _ in again.steps()] == [step.id for step, _ in plan.steps()]


def test_bases_and_data_of_a_survey_come_from_a_hub(hub: Hub) -> None:
    hub.put("org/base", MODEL)
    hub.put("org/set", {"d.jsonl": b"{}"}, "datasets")
    spec = SurveySpec.model_validate(
        {
            "name": "s",
            "bases": {"folders": {"a": {"path": "org/base", "family": "f"}}},
            "data": {"files": {"d": {"source": "org/set"}}},
            "benchmarks": {
                "files": {"b": {"source": "org/set:d.jsonl"}},
                "code": {"files": {"p": {"source": "org/set:d.jsonl"}}},
            },
            "runs": [{"sizes": [1]}],
        }
    )
    found = survey_sources.fetched(spec, online=True)
    assert origin_of(Path(found.bases.folders["a"].path)) is not None
    assert Path(found.data.files["d"].source).read_bytes() == b"{}"
    assert found.data.files["d"].source == found.benchmarks.files["b"].source
    assert found.data.files["d"].source == found.benchmarks.programs["p"].source


@pytest.mark.parametrize(
    ("path", "origin"),
    [
        ("/c/models--org--a--b/snapshots/abc", "org/a--b@abc"),
        ("/c/datasets--org--a/snapshots/abc/x/y.json", "org/a@abc:x/y.json"),
        ("/c/models--gpt2/snapshots/abc", None),
        ("/home/snapshots/abc", None),
        ("snapshots", None),
        ("/models/base", None),
    ],
)
def test_a_path_in_the_cache_says_what_it_is_of(path: str, origin: str | None) -> None:
    assert origin_of(Path(path)) == origin
    assert name_of(Path(path)) == (origin.partition("@")[0] if origin else Path(path).name)
