"""The Dockerfile passes a linter, runs as nobody in particular, and takes in what it names and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
HADOLINT = Path(sys.executable).parent / "hadolint"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONTEXT_BOUND = 4 * 2**20  # bytes
BASE = r"python:\d+\.\d+\.\d+-slim-[a-z]+(@sha256:[0-9a-f]{64})?"


def instructions(text: str) -> list[tuple[str, str]]:
    """(instruction, rest) with continued lines joined and comments left out."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    words = [line.split(None, 1) for line in lines.replace("\\\n", " ").splitlines() if line.strip()]
    return [(word[0].upper(), word[1].strip()) for word in words]


def faults(text: str) -> set[str]:
    """Codes of the linter's findings, of every severity, and what it does not look for."""
    done = subprocess.run(
        [str(HADOLINT), "--format", "json", "-"], input=text, capture_output=True, text=True, check=False
    )
    found = {finding["code"] for finding in json.loads(done.stdout)}
    parts = instructions(text)
    users = [rest for name, rest in parts if name == "USER"]
    if not users or users[-1].split(":")[0] in ("root", "0"):
        found.add("runs as root")
    if any(name in ("ARG", "ENV") and re.search("TOKEN|PASSWORD|SECRET|_KEY", rest) for name, rest in parts):
        found.add("a secret in the image")
    for name, rest in parts:
        if name == "RUN" and "pip install" in rest and "--no-deps" not in rest:
            found.add("dependencies that are not locked")
        if name == "ADD" or (name == "COPY" and rest.split()[0] in (".", "./")):
            found.add("more than is named")
        if name == "FROM" and not re.fullmatch(BASE, rest):
            found.add("a base image that moves")
    return found


def test_the_dockerfile_has_no_faults() -> None:
    assert faults(DOCKERFILE) == set()


def test_a_base_image_may_be_held_by_its_digest() -> None:
    assert faults(DOCKERFILE.replace("-slim-bookworm", f"-slim-bookworm@sha256:{'0' * 64}")) == set()


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("python:3.11.14-slim-bookworm", "python:latest", "DL3007"),
        ("python:3.11.14-slim-bookworm", "python:3.11-slim", "a base image that moves"),
        ("python:3.11.14-slim-bookworm", "python:3.11.14-slim-bookworm@sha256:12", "a base image that moves"),
        ("USER 1000:1000", "", "runs as root"),
        ("USER 1000:1000", "USER root", "DL3002"),
        ("WORKDIR /opt/sftlab", "WORKDIR opt/sftlab", "DL3000"),
        ("--no-install-recommends ", "", "DL3015"),
        ("    && rm -rf /var/lib/apt/lists/*", "    && true", "DL3009"),
        ("RUN apt-get update", "RUN sudo apt-get update", "DL3004"),
        ("COPY jobs jobs", "ADD jobs jobs", "DL3020"),
        ("COPY jobs jobs", "COPY . .", "more than is named"),
        ("--no-cache-dir --no-deps --requirement", "--no-cache-dir --requirement", "not locked"),
        ("ENV RAY_AUTH_MODE=token", "ENV RAY_AUTH_TOKEN=abc", "a secret in the image"),
        ('CMD ["sftlab", "--help"]', "CMD sftlab --help", "DL3025"),
        ("RUN groupadd", "RUNN groupadd", "syntax"),
    ],
)
def test_a_worse_dockerfile_is_found(old: str, new: str, fault: str) -> None:
    assert old in DOCKERFILE
    worse = DOCKERFILE.replace(old, new)
    if fault == "syntax":
        fault = "DL1000"
    assert any(fault in found for found in faults(worse))


def ignored(file: Path) -> bool:
    """What the last lines of .dockerignore take out again."""
    secret = file.suffix in (".env", ".pem", ".key") or file.name == "auth_token"
    return secret or any(
        p == "__pycache__" or p.endswith(".egg-info") or p.startswith(".") for p in file.parts
    )


def test_the_context_holds_what_is_copied_and_stays_small() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] not in ("#", "")]
    assert lines[0] == "*"  # everything is left out, but for
    out = {"__pycache__", "*.egg-info", ".*", "*.env", "*.pem", "*.key", "auth_token"}
    assert {line for line in lines if line.startswith("**")} == {f"**/{name}" for name in out}
    taken = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        word.split("/")[0]
        for name, rest in instructions(DOCKERFILE)
        if name == "COPY"
        for word in rest.split()[:-1]
    }
    assert taken == copied
    sizes = [
        file.stat().st_size
        for name in taken
        for file in ([ROOT / name] if (ROOT / name).is_file() else (ROOT / name).rglob("*"))
        if file.is_file() and not ignored(file.relative_to(ROOT))
    ]
    assert len(sizes) > 100 and sum(sizes) < CONTEXT_BOUND


def lock(profile: str) -> dict[str, str]:
    lines = (ROOT / "requirements" / f"{profile}.lock").read_text().splitlines()
    pairs = [line.partition("==") for line in lines if re.match(r"[A-Za-z0-9]", line) and "==" in line]
    return {canonicalize_name(name): rest.split()[0] for name, _, rest in pairs}


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_the_lock_of_the_image_pins_all_that_the_project_asks_for(profile: str) -> None:
    pinned = lock(profile)
    extras = PROJECT["optional-dependencies"]
    for text in (*PROJECT["dependencies"], *extras[profile], *extras["dev"]):
        wanted = Requirement(text)
        found = pinned.get(canonicalize_name(wanted.name))
        assert found is not None, f"{wanted.name} is missing in {profile}.lock"
        assert wanted.specifier.contains(found, prereleases=True), f"{text}: {profile}.lock has {found}"


def test_the_image_s_python_and_ray_are_those_that_the_project_and_the_cluster_name() -> None:
    (base,) = [rest for name, rest in instructions(DOCKERFILE) if name == "FROM"]
    python = base.partition(":")[2].partition("-")[0]
    assert python in SpecifierSet(PROJECT["requires-python"])
    cluster = yaml.safe_load((ROOT / "deploy" / "kuberay" / "cluster.yaml").read_text())["spec"]
    assert cluster["rayVersion"] == lock("gpu")["ray"] == lock("cpu")["ray"]
    image = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["image"]
    assert image.endswith(f":{PROJECT['version']}-gpu")
    user = cluster["headGroupSpec"]["template"]["spec"]["securityContext"]["runAsUser"]
    assert f"USER {user}:{user}" in DOCKERFILE


def installations(commands: str) -> list[set[str]]:
    """What each `pip install` of shell text is given, in order, but for what only shows or caches."""
    joined = commands.replace("\\\n", " ").replace("--requirement", "-r").replace("--progress-bar off", "")
    calls = re.findall(r"-m pip install ([^&|\n]*)", joined.replace('"', ""))
    return [set(call.split()) - {"--no-cache-dir", "-e"} for call in calls]


def test_the_image_installs_what_make_setup_installs(tmp_path: Path) -> None:
    setup = subprocess.run(
        ["make", "--dry-run", "setup", "PROFILE=gpu", f"VENV={tmp_path}"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    ).stdout  # fmt: skip
    image = "\n".join(rest for name, rest in instructions(DOCKERFILE) if name == "RUN")
    here, there = installations(setup), installations(image.replace("${PROFILE}", "gpu"))
    assert len(here) == 3 and here == there
    locked = {"--no-deps", "--require-hashes", "--only-binary", ":all:"}
    assert here[0] == locked | {"-r", "requirements/build.lock"}
    source = {"--no-binary", "deepspeed", "--no-build-isolation"}
    assert here[1] == locked | source | {"-r", "requirements/gpu.lock"}
