"""What `make setup` prints while it installs, with programs in place of Python and pip that wait, print or fail."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
HEARTBEAT = ROOT / "requirements" / "heartbeat.py"
STEPS = """\
setup 1 of 4: creates the environment {venv}
setup 2 of 4: installs the build tools of requirements/build.lock
setup 3 of 4: installs the packages of requirements/cpu.lock, takes minutes
setup 4 of 4: installs sftlab
setup is complete
"""


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def make_setup(folder: Path, pip: str, *options: str) -> subprocess.CompletedProcess[str]:
    """`make setup` where the environment's Python is the shell text `pip`, and is there from the beginning."""
    program(folder / "venv" / "bin" / "python", pip)
    python = program(folder / "python", f'[ "$1 $2" = "-m venv" ] || exec {sys.executable} "$@"')
    return subprocess.run(
        ["make", "--no-print-directory", "setup", f"VENV={folder / 'venv'}", f"PYTHON={python}", "PROFILE=cpu",
         *options],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip


def heartbeat(seconds: float, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(HEARTBEAT), str(seconds), "sh", "-c", command],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_setup_names_each_step_and_shows_no_recipe(tmp_path: Path) -> None:
    done = make_setup(tmp_path, "exit 0")
    assert done.returncode == 0 and not done.stderr
    assert done.stdout == STEPS.format(venv=tmp_path / "venv")
    assert (tmp_path / "venv" / ".ready-cpu").exists()


def test_a_setup_that_fails_shows_why_and_is_not_taken_for_a_finished_one(tmp_path: Path) -> None:
    pip = 'case "$*" in *cpu.lock*) echo Collecting torch; echo "ERROR: no torch" >&2; exit 1;; esac'
    done = make_setup(tmp_path, pip)
    assert done.returncode == 2 and "Error" in done.stderr
    assert "ERROR: no torch\n" in done.stderr
    assert done.stdout.endswith(
        "Collecting torch\n" + re.findall('HINT_cpu := echo "(.*)"', makefile())[0] + "\n"
    )
    assert not (tmp_path / "venv" / ".ready-cpu").exists()


def test_every_step_of_setup_that_takes_time_is_reported_within_ten_seconds(tmp_path: Path) -> None:
    (seconds,) = re.findall(r"^HEARTBEAT := .* (\d+)$", makefile(), re.MULTILINE)
    assert 0 < int(seconds) < 10
    slow = re.findall(r"^\t@(.*(?:-m venv|\$\(PIP\)|\$\(LOCKED\)).*)$", makefile(), re.MULTILINE)
    assert len(slow) == 4 and all(line.startswith("$(HEARTBEAT) ") for line in slow)
    done = make_setup(tmp_path, 'case "$*" in *cpu.lock*) echo Collecting ray; sleep 1;; esac',
                      f"HEARTBEAT={sys.executable} {HEARTBEAT} 0.2")  # fmt: skip
    assert done.returncode == 0
    assert done.stdout.count("s: Collecting ray\n") >= 2


def makefile() -> str:
    return (ROOT / "Makefile").read_text()


def test_the_newest_line_of_a_long_command_is_reported_with_the_elapsed_time() -> None:
    done = heartbeat(0.4, "sleep 1; echo first; sleep 1; echo second; sleep 1")
    lines = [re.fullmatch(r"  (\d+) s: (.*)", line) for line in done.stdout.splitlines()]
    said = [(int(line[1]), line[2]) for line in lines if line]
    assert done.returncode == 0 and len(said) == len(lines) >= 4
    assert [seconds for seconds, _ in said] == sorted(seconds for seconds, _ in said)
    assert list(dict.fromkeys(text for _, text in said)) == ["started", "first", "second"]


def test_a_long_line_is_shortened_while_the_command_works_and_whole_when_it_fails() -> None:
    done = heartbeat(0.5, f"echo {'x' * 300}; sleep 1.2; exit 3")
    first, *_, last = done.stdout.splitlines()
    assert first.endswith(": " + "x" * 100 + "...") and last == "x" * 300
    assert done.returncode == 3


def test_a_short_command_that_succeeds_prints_nothing_but_its_errors() -> None:
    done = heartbeat(9, "echo fine; echo careful >&2")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "careful\n")


def test_the_end_of_the_output_is_printed_when_a_command_fails() -> None:
    done = heartbeat(9, "seq 100; echo broken >&2; exit 7")
    assert done.stdout.split() == [str(number) for number in range(81, 101)]
    assert (done.returncode, done.stderr) == (7, "broken\n")


def test_a_command_that_a_signal_ends_gives_the_status_of_a_shell() -> None:
    assert heartbeat(9, "kill -KILL $$").returncode == 128 + signal.SIGKILL


def test_a_termination_ends_the_command_too() -> None:
    process = subprocess.Popen(
        [sys.executable, str(HEARTBEAT), "0.1", "sh", "-c", "echo $$; exec sleep 60"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    number = next(int(line.split()[-1]) for line in process.stdout if not line.endswith("started\n"))
    process.terminate()
    assert process.wait(timeout=20) == 128 + signal.SIGTERM
    process.stdout.close()
    assert not Path(f"/proc/{number}").exists()


def test_the_test_files_that_the_makefile_names_exist() -> None:
    later = re.findall(
        r"^LATER_TESTS := \$\(addprefix tests/unit/,(.*?)\)$", makefile(), re.MULTILINE | re.DOTALL
    )
    names = [f"tests/unit/{name}" for name in later[0].replace("\\\n", " ").split()]
    names += re.findall(r"^PATH_TESTS := (.*)$", makefile(), re.MULTILINE)[0].split()
    assert len(names) > 10 and [name for name in names if not (ROOT / name).is_file()] == []
