"""The files and commands of the section of docs/sweeps.md on strategies of one's own, as they stand there."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]


def section() -> str:
    text = (ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8")
    return text.split("## A strategy of your own\n")[1].split("\n## ")[0]


def documented_module() -> str:
    return block("python")[0]


def block(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", section(), re.DOTALL)


def write_documented_files(folder: Path) -> list[str]:
    """Writes the files below `folder`, beside the shipped studies that they build on; returns the commands."""
    names = re.findall(r"`(jobs/configs/own/\w+\.(?:py|yaml))`", section())
    contents = [*block("python"), *block("yaml")]
    assert [Path(name).suffix for name in names] == [".py", ".yaml", ".yaml"]
    (folder / "jobs" / "configs" / "own").mkdir(parents=True)
    shutil.copy(ROOT / "jobs" / "configs" / "tiny.yaml", folder / "jobs" / "configs")
    for name, content in zip(names, contents, strict=True):
        (folder / name).write_text(content, encoding="utf-8")
    return [line for text in block("sh") for line in text.splitlines()]
