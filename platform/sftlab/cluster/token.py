"""Ray's token: whoever reaches a Ray cluster without one can run code on it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from uuid import uuid4

from sftlab.errors import UserError

MODE = "RAY_AUTH_MODE"
GIVEN = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


def require_token(address: str) -> None:
    """Raises UserError where a cluster would be joined without a word on its authentication.

    Ray turns it on for a cluster of this machine alone, but not where it joins one by its address.
    """
    if MODE not in os.environ:
        raise UserError(
            f"{MODE} is not set",
            place=f"RAY_ADDRESS={address}",
            advice=(
                f"set {MODE}=token, and start the cluster with it; the token is in ~/.ray/auth_token or in {GIVEN[0]} "
                f"(`ray get-auth-token --generate` makes one). {MODE}=disabled joins a cluster without it, on which "
                "everybody who reaches its ports can run code."
            ),
        )


def own_token(home: Path) -> None:
    """Have a token in HOME/.ray/auth_token that nobody else can read, where no other is given.

    Ray would make one itself, readable for every user of the machine.
    """
    if os.environ.get(MODE, "token").lower() != "token" or any(name in os.environ for name in GIVEN):
        return
    path = home / ".ray" / "auth_token"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _write(path)
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
    except OSError as error:
        raise UserError(
            f"Ray's token cannot be kept there ({error.strerror})",
            place=path,
            advice=(
                f"set {GIVEN[0]} to a secret text of at least 32 characters, or {GIVEN[1]} to a file "
                "that holds one."
            ),
        ) from error


def _write(path: Path) -> None:
    """A fresh token at `path`, whole and for its owner alone; one that another process puts there first is kept."""
    part = path.with_name(f".{path.name}.{uuid4().hex}")
    part.touch(mode=0o600)
    try:
        part.write_text(token_hex(32))
        with suppress(FileExistsError):
            path.hardlink_to(part)
    finally:
        part.unlink()
