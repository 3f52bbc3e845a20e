"""The command line: Typer commands, and what they print."""

from __future__ import annotations

from typing import NoReturn


def main(arguments: list[str] | None = None) -> NoReturn:
    """Entry point of installations that name `sftlab.cli:main`."""
    from sftlab.cli.app import main as run

    run(arguments)
