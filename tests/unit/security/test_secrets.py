"""A password in an address that somebody gives is refused, and not repeated where logs keep it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sftlab.cli.app import main
from sftlab.errors import UserError

STUDY = Path(__file__).parents[3] / "jobs" / "configs" / "tiny.yaml"


@pytest.mark.parametrize(
    "setting",
    [
        "runtime.tracking.address=http://user:hunter2@127.0.0.1:5000",
        "runtime.tracking.address=[http://user:hunter2@127.0.0.1:5000]",
        "runtime.tracking.address=ftp://user:hunter2@127.0.0.1",
        "runtime.store=s3://key:hunter2@bucket/prefix",
        "runtime.store=s3://bucket/prefix?secret_key=hunter2",
        "runtime.store=s3://bucket/prefix?endpoint_override=http://user:hunter2@minio:9000",
        "runtime.tracking.address=http://user:hunter2/x@127.0.0.1",
        "runtime.tracking.address=http://user:hunter2/x%40127.0.0.1",
        "runtime.tracking.address=http://user:hunter2",
        "runtime.tracking.address=http://user:1/hunter2@127.0.0.1",
        "sft.epochs=http://us/er:hunter2@127.0.0.1",
        "runtime.track=http://user:hunter2@127.0.0.1",
        "sft.epochs=http://user:hunter2@127.0.0.1",
        "http://user:hunter2@127.0.0.1",
    ],
)
def test_a_password_in_an_address_is_refused_and_not_repeated(
    setting: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sftlab", "plan", str(STUDY), "--set", setting])
    with pytest.raises(SystemExit) as ended:
        main()
    shown = "".join(capsys.readouterr())
    assert ended.value.code == 2 and "hunter2" not in shown and len(shown) > 20


@pytest.mark.parametrize(
    "text",
    [
        "see http://127.0.0.1:5000/x",
        "a@b.c",
        "s3://bucket/prefix?region=x",
        "models:/name@champion",
        "http://[::1]:5000/a, http://host:80, 'sqlite:////a/b.db'",
        "expected ray://HOST:PORT, or http(s)://HOST:PORT.",
        "ray://<head>:<port>; http://$HOST:$PORT/x, http://{host}:{port}, https://${HOST}:${PORT}?a=b",
        "http://127.0.0.1:8000/org/name@v1, http://localhost:80/a@b, http://[::1]:80/a@b, http://10.0.0.1/a@b",
        "https://huggingface.co/org/name@v1 and s3://bucket/run@2/x",
    ],
)
def test_an_address_without_a_password_is_shown_as_it_is(text: str) -> None:
    assert str(UserError(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "http://user:PORTER-hunter2@host",
        "http://user:port%40hunter2",
        "http://user:hunter2/PORT@host:80",
        "ray://HOST:hunter2",
        "http://localhost:hunter2/x@host",
        "http://127.0.0.1:80@hunter2:pw@host",
        "http://hunter2@host/a@b",
        "http://user%3Ahunter2/a@host",
        "http://host:80/hunter2:a@host",
    ],
)
def test_a_password_beside_a_port_is_masked(text: str) -> None:
    assert "hunter2" not in str(UserError(text))
    assert "***" in str(UserError(text))


def test_only_passwords_are_masked() -> None:
    assert str(UserError("x http://u:p@h/a, s3://b?secret_key=q&region=r")) == (
        "x http://***@h/a, s3://b?secret_key=***&region=r"
    )
