"""Commands that people paste into a shell: the one place that writes them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path


def command(*words: str | Path, environment: Mapping[str, str] | None = None) -> str:
    """A command as a POSIX shell reads it, each word quoted where it needs to be.

    A word that is a Path is never read as an option: `-x.yaml` becomes `./-x.yaml`. environment: variables that are
    set for the command.
    """
    assigned = [f"{name}={shlex.quote(value)}" for name, value in (environment or {}).items()]
    return " ".join([*assigned, *(shlex.quote(_word(word)) for word in words)])


def _word(word: str | Path) -> str:
    text = str(word)
    return f"./{text}" if isinstance(word, Path) and text.startswith("-") else text
