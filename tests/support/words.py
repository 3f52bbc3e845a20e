"""Checks the wording of the repository: `python -m tests.support.words` fails where a text uses a word of WORDS."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

CHECKED = ("*.md", "platform/**/*.py", "*.j2", "jobs/**")

# What plain technical English does not use, and what it uses.
WORDS = {
    r"tell|tells|telling|told": "report, raise, log, notify; distinguish",
    r"anew": "again",
    r"mend|mends|mended|mending": "repair, fix",
    r"spoken": "the name of what is meant",
    r"strokes?(?![-=])": "slash, dash",  # the two are attributes of SVG
    r"blows?": "fault",
    r"dearest": "most expensive",
    r"number types?": "dtype",
    # But for the notice of the store, which tests of whole runs assert.
    r"(?:set|sets|setting) (?:\w+ ){0,3}aside(?! as)": "quarantine",
}
_PATTERN = re.compile(
    "|".join(rf"(?P<_{at}>\b(?:{word})(?![a-z]))" for at, word in enumerate(WORDS)), re.IGNORECASE
)


def unwanted(text: str) -> Iterator[tuple[int, str, str]]:
    """The unwanted words of a text: line number (from 1), word, what to write instead."""
    instead = list(WORDS.values())
    for number, line in enumerate(text.splitlines(), 1):
        for found in _PATTERN.finditer(line):
            yield number, found[0], instead[int((found.lastgroup or "")[1:])]


def checked_files(root: Path) -> list[Path]:
    """The files under version control whose wording is checked."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--", *CHECKED]
    names = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")
    return [root / name for name in names if name and (root / name).is_file()]


def main(root: Path) -> int:
    """Print every unwanted word as file:line; return 1 where there is one."""
    lines = [
        f"{file.relative_to(root)}:{number}: {word!r}; write: {instead}"
        for file in checked_files(root)
        for number, word, instead in unwanted(file.read_text())
    ]
    print("\n".join(lines) or "words: no unwanted word")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main(Path(__file__).parents[2]))
