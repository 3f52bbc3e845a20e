"""Ray's token is there before Ray is, for its owner alone, and no cluster is joined without a word on it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from sftlab.cluster.token import own_token, require_token
from sftlab.errors import UserError


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_token_is_made_that_only_its_owner_reads_and_is_kept(tmp_path: Path) -> None:
    own_token(tmp_path)
    file = tmp_path / ".ray" / "auth_token"
    first = file.read_text()
    assert len(first) == 64 and set(first) <= set("0123456789abcdef")
    assert mode(file) == 0o600 and [path.name for path in file.parent.iterdir()] == ["auth_token"]
    own_token(tmp_path)
    assert file.read_text() == first
    own_token(tmp_path / "other")
    assert (tmp_path / "other" / ".ray" / "auth_token").read_text() != first


def test_a_token_that_others_could_read_is_closed(tmp_path: Path) -> None:
    file = tmp_path / ".ray" / "auth_token"
    file.parent.mkdir()
    file.write_text("x" * 40)
    file.chmod(0o644)
    own_token(tmp_path)
    assert mode(file) == 0o600 and file.read_text() == "x" * 40


@pytest.mark.parametrize(
    ("name", "value"),
    [("RAY_AUTH_MODE", "disabled"), ("RAY_AUTH_TOKEN", "y" * 40), ("RAY_AUTH_TOKEN_PATH", "/x")],
)
def test_what_the_user_has_set_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    own_token(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_holds_no_token_is_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / ".ray").write_text("a file")
    with pytest.raises(UserError, match=r"auth_token: .*RAY_AUTH_TOKEN"):
        own_token(tmp_path)


def test_a_cluster_is_joined_only_with_a_word_on_its_authentication(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="RAY_AUTH_MODE=token"):
        require_token("10.0.0.1:6379")
    for word in ("token", "disabled"):
        monkeypatch.setenv("RAY_AUTH_MODE", word)
        require_token("10.0.0.1:6379")
