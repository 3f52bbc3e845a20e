"""The command line: help, exit codes, and that nothing heavy is loaded before it is needed."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sftlab.cli.app import app
from sftlab.errors import UserError
from sftlab.facts.templates import dump_topics, published_topics
from sftlab.studies.knowledge.pipeline import STAGES

ROOT = Path(__file__).parents[3]
COMMANDS = tuple(
    command.name or command.callback.__name__ for command in app.registered_commands if command.callback
)


def sftlab(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = "from sftlab.cli.app import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, cwd=ROOT
    )


def test_help_lists_every_command_and_each_has_an_example() -> None:
    shown = sftlab("--help")
    assert shown.returncode == 0 and all(name in shown.stdout for name in COMMANDS)
    for name in COMMANDS:
        told = CliRunner().invoke(app, [name, "--help"]).stdout
        assert f"Example: sftlab {name}" in " ".join(told.split())


def test_every_command_s_line_fits_80_columns_whole() -> None:
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80"}).stdout
    listed = shown[shown.index("Commands:") :]
    assert len(COMMANDS) == 22 and all(f"\n  {name} " in listed for name in COMMANDS)
    assert "..." not in listed and "\N{HORIZONTAL ELLIPSIS}" not in shown
    assert all(line.endswith(".") and len(line) <= 80 for line in listed.splitlines()[1:] if line)


def test_the_help_of_run_lists_the_stages_in_their_order() -> None:
    names = [stage.name for stage in STAGES]
    told = " ".join(CliRunner().invoke(app, ["run", "--help"]).stdout.split())
    assert f"Last stage to build: {', '.join(names[:-1])} or {names[-1]}." in told


@pytest.mark.parametrize(
    "arguments",
    [
        ["restore", "--base", "jobs", "--tuned", "jobs", "--output", "c", "--percent", "5"],
        ["restore", "--base", "jobs", "--tuned", "jobs", "--output", "c", "--percent", "500"],
        ["change", "--base", "jobs", "--tuned", "jobs", "--output", "c", "--layers", "x"],
        ["pack", "--base", "jobs", "--tuned", "jobs", "--output", "c"],
        ["unpack", "--base", "jobs", "--packed", "jobs", "--output", "c"],
        ["materialize", "0123456789ab"],
    ],
)
def test_wrong_arguments_are_told_before_anything_is_said_to_begin(
    arguments: list[str], tmp_path: Path
) -> None:
    store = ["--store", str(tmp_path)] if arguments[0] == "materialize" else []
    done = CliRunner().invoke(app, [*arguments, *store])
    assert isinstance(done.exception, UserError) and "started" not in done.output


def test_importing_the_package_and_its_commands_loads_nothing_heavy() -> None:
    code = (
        "import sys, sftlab, sftlab.cli.app, sftlab.cli.study\n"
        "print([m for m in ('torch', 'ray', 'vllm', 'deepspeed', 'mlflow', 'pyarrow', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "none.yaml"], "none.yaml: cannot be read"),
        (["run", "jobs/configs/tiny.yaml", "--until", "lunch"], "stages are facts"),
        (["prepare", "--source", "nowhere.zip", "--output", "out"], "nowhere.zip: not found"),
        (["restore", "--base", "a", "--tuned", "b", "--output", "c", "--region", "knee"], "--region knee"),
        (["change", "--base", "a", "--tuned", "b", "--output", "c", "--measure", "inch"], "--measure inch"),
        (["change", "--base", "nowhere", "--tuned", "nowhere", "--output", "c"], "nowhere"),
        (["pack", "--base", "jobs", "--tuned", "jobs", "--output", "c"], "jobs/config.json: not found"),
        (
            ["unpack", "--base", "jobs", "--packed", "jobs", "--output", "c"],
            "jobs: has no weights.delta.json",
        ),
        (["pocket", "--output", "/proc/x"], "/proc/x/facts: cannot be made a folder"),
        (["pocket", "--output", "c", "--threads", "0"], "--threads"),
        (["pocket", "--output", "c", "--seed", "-1"], "--seed"),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_exit_code_2(arguments: list[str], message: str) -> None:
    done = sftlab(*arguments)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("sftlab.cli.data.prepare_facts", ["prepare", "--source", "a.zip", "--output", "b"]),
        ("sftlab.cli.study.study_plan", ["plan", "a.yaml"]),
    ],
)
def test_ctrl_c_exits_with_130_and_no_traceback(
    function: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(function, interrupted)
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 130 and "run the same command to go on" in done.output


def test_prepare_prints_counts_by_split_and_topic_as_json(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "eq.zip", "w") as out:
        for split in ("train", "test", "dev"):
            for topic in published_topics():
                question = f"What is the capital of {split}?"  # splits that share one are reported on stderr
                rows = [{"question": question, "answers": ["Y"]}] if topic == "P36" else []
                out.writestr(f"dataset/{split}/{topic}.{split}.json", json.dumps(rows))
    done = sftlab(
        "prepare", "--source", str(tmp_path / "eq.zip"), "--output", str(tmp_path / "facts"), "--json"
    )
    shown = json.loads(done.stdout)
    assert shown["facts"] == {"train": 1, "test": 1, "test_ood": 0, "dev": 1, "dev_ood": 0}
    assert shown["topics"]["train"] == {"P36": 1}
    assert (tmp_path / "facts" / "train.parquet").is_file() and not done.stderr
    one = published_topics()["P36"]
    (tmp_path / "one.yaml").write_text(dump_topics([one]))
    arguments = ("--source", str(tmp_path / "eq.zip"), "--templates", str(tmp_path / "one.yaml"), "--json")
    done = sftlab("prepare", *arguments, "--output", str(tmp_path / "one"))
    assert json.loads(done.stdout)["topics"]["train"] == {"P36": 1}
    assert "eq.zip: left out, as there are no templates for them: the topics 'P106', " in done.stderr


@pytest.mark.skipif(
    not (ROOT.parent / "shared/data/entity_questions.zip").exists()
    and not (ROOT / "data/entity_questions.zip").exists(),
    reason="EntityQuestions is not here; `make data` fetches it",
)
def test_entity_questions_gives_the_study_s_totals(tmp_path: Path) -> None:
    places = (ROOT / "data/entity_questions.zip", ROOT.parent / "shared/data/entity_questions.zip")
    source = next(path for path in places if path.exists())
    done = sftlab("prepare", "--source", str(source), "--output", str(tmp_path), "--json")
    counts = json.loads(done.stdout)["facts"]
    assert (counts["train"], counts["test"], counts["test_ood"]) == (75_944, 9_555, 11_613)
