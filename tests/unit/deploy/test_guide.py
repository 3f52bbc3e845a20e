"""The lines of docs/cluster.md that no test can run are at least ones that a shell, Ray and this checkout know."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import click
import pytest

from sftlab.execution.checks import check_store
from sftlab.store.objects import is_address
from sftlab.studies.load import load_runtime, load_study, load_survey, load_sweep

ROOT = Path(__file__).parents[3]
GUIDE = (ROOT / "docs" / "cluster.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL)
LINES = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines() if line.strip()]
STUDIES = [line for line in LINES if "jobs/run_study.py" in line]


def unknown(words: list[str]) -> list[str]:
    """Words of a `ray` call that Ray's command line does not know: a command, or an option."""
    from ray.scripts.scripts import cli

    command: click.Command = cli
    while isinstance(command, click.Group) and words:
        if words[0] not in command.commands:
            return [words[0]]
        command, words = command.commands[words[0]], words[1:]
    own = words[: words.index("--")] if "--" in words else words
    known = {name for parameter in command.params for name in parameter.opts}
    return [word for word in own if word.startswith("--") and word.partition("=")[0] not in known]


def test_every_block_is_one_that_a_shell_reads() -> None:
    assert len(BLOCKS) > 10
    for block in BLOCKS:
        subprocess.run(["bash", "-n", "-c", block], check=True)


def test_ray_knows_every_command_and_option() -> None:
    calls = [shlex.split(line, comments=True) for line in LINES if line.startswith("ray ")]
    assert len(calls) > 20
    for words in calls:
        assert unknown(words[1:]) == [], words
    assert unknown(["jbo", "submit"]) == ["jbo"]
    assert unknown(["job", "submit", "--working-dri", ".", "--", "x", "--y"]) == ["--working-dri"]


def test_every_file_that_is_named_is_there() -> None:
    named = set(re.findall(r"\b(?:jobs|deploy|docs|tests|benchmarks|platform)/[\w./-]+\.\w+", GUIDE))
    named |= {
        f"platform/sftlab/{name}" for name in re.findall(r"`((?:training|inference|weights)/\w+\.py)`", GUIDE)
    }
    assert len(named) > 10
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("line", STUDIES, ids=range(len(STUDIES)))
def test_a_submitted_study_is_one_that_the_settings_allow(line: str) -> None:
    words = shlex.split(line)
    settings = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    study = ROOT / words[words.index("--config") + 1]
    spec = load_study(study, settings)
    runtime = load_runtime(ROOT / words[words.index("--runtime") + 1], settings)
    assert spec.name == study.stem and runtime.training.workers > 1
    store = words[words.index("--store") + 1]
    assert is_address(store) or Path(store.replace("$PWD", "/home")).is_absolute()
    check_store(runtime.model_copy(update={"store": store}))


def test_links_within_the_guide_lead_to_its_headings() -> None:
    headings = re.findall(r"^#+ (.+)$", GUIDE, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    linked = set(re.findall(r"\]\(#([\w-]+)\)", GUIDE))
    assert linked and linked <= anchors


def test_ray_job_knows_the_cluster_before_the_first_line_that_needs_it() -> None:
    for name, text in (("cluster.md", GUIDE), ("README.md", (ROOT / "README.md").read_text())):
        shell = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
        known, first = shell.index("RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265"), shell.index("ray job ")
        assert known < first and shell.index("RAY_AUTH_MODE=token") < first, name


def test_the_submitted_sweep_is_one_that_the_settings_allow() -> None:
    (line,) = [line for line in LINES if "jobs/sweep.py" in line]
    words = shlex.split(line)
    settings = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    sweep, study = load_sweep(ROOT / words[words.index("--config") + 1], settings)
    runtime = load_runtime(ROOT / words[words.index("--runtime") + 1], settings)
    assert sweep.name == "llama3-8b-sweep" and str(study.facts.source).startswith("/shared/")
    assert runtime.tracking.is_server


def test_the_submitted_survey_is_one_that_the_settings_allow() -> None:
    (line,) = [line for line in LINES if "jobs/survey.py" in line]
    words = shlex.split(line)
    settings = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    survey = load_survey(ROOT / words[words.index("--config") + 1], settings)
    runtime = load_runtime(ROOT / words[words.index("--runtime") + 1], settings)
    assert survey.name == "massive-sft" and runtime.tracking.is_server
    assert all(base.path.startswith("/shared/") for base in survey.bases.folders.values())
