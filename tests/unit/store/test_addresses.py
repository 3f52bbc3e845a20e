"""Addresses of object stores: what they say, and what they must not."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from sftlab.cli.app import app
from sftlab.errors import UserError
from sftlab.execution.checks import RAY_JOB, check_store
from sftlab.execution.runtime import Runtime
from sftlab.store.mirror import display_path, make_mirror, mirror_of
from sftlab.store.objects import endpoint_of, is_address, open_objects, parse_address
from sftlab.store.record import Step
from tests.support.refusals import refused


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
        ("gs://bucket/a", "gs://bucket/a"),
        (
            "s3://b/a?region=eu-west-1&endpoint_override=http:/127.0.0.1:5000",
            "s3://b/a?endpoint_override=127.0.0.1:5000&region=eu-west-1&scheme=http",
        ),
    ],
)
def test_an_address_is_taken_apart_and_shown_again(text: str, shown: str) -> None:
    assert is_address(text)
    assert str(parse_address(text)) == shown
    assert parse_address(shown) == parse_address(text)


@pytest.mark.parametrize(
    "text",
    [
        "s3://AKIAKEY:hush-hush@bucket/a",
        "s3://bucket/a?secret_key=hush-hush",
        "s3://bucket/a?access_key=hush-hush&secret_key=x",
        "s3://bucket/a?session_token=hush-hush",
        "gs://user@bucket/hush-hush",
        "s3://bucket/a?endpoint_override=http://user:hush-hush@minio:9000",
        "s3://bucket/a?endpoint_override=user:hush-hush%2540minio:9000&scheme=http",
    ],
)
def test_an_address_with_a_secret_is_refused_and_the_secret_not_told(text: str) -> None:
    with refused("holds a key or a password") as told:
        parse_address(text)
    assert "hush" not in str(told.value) and "AKIA" not in str(told.value)
    with refused("holds a key or a password"):
        check_store(Runtime(store=text))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("hdfs://name/a", "hdfs:// is no place for a store"),
        ("http://server/a", "http:// is no place"),
        ("s3://", "no bucket"),
        ("s3:", "no place for a store.* with two slashes"),
        ("s3:/bucket/a", "no place for a store.* with two slashes"),
        ("S3://bucket/a", "no place for a store.* write s3://, in lowercase"),
        ("s3://bucket/a//b", "part of the prefix is empty"),
        ("s3://bucket/../b", "part of the prefix"),
        ("s3://bucket/a?speed=1", "unknown option speed"),
    ],
)
def test_what_is_no_address_of_an_object_store_is_refused(text: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        parse_address(text)


@pytest.mark.parametrize("text", ["s3://", "s3:/bucket/a", "S3://bucket/a"])
def test_what_is_meant_as_an_address_makes_no_folder(text: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["verify", "--store", text], env={"HOME": str(tmp_path)})
    assert isinstance(done.exception, UserError) and text.partition(":")[0] in str(done.exception)


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_a_password_in_the_endpoint_of_the_environment_is_refused_and_not_repeated(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = parse_address("s3://bucket/a")
    for endpoint in ("http://user:hunter2@127.0.0.1:9", "user:hunter2@127.0.0.1:9"):
        monkeypatch.setenv(name, endpoint)
        with pytest.raises(UserError, match=f"{name}: has a user or a password") as refused:
            open_objects(address)
        assert "hunter2" not in str(refused.value)
    monkeypatch.setenv(name, "http://127.0.0.1:9/")
    assert endpoint_of(address) == ("http", "127.0.0.1:9")
    assert endpoint_of(parse_address("s3://b?endpoint_override=h:1&scheme=https")) == ("https", "h:1")


def test_a_submitted_job_takes_an_address_and_no_relative_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RAY_JOB, "{}")
    check_store(Runtime(store="s3://bucket/a"))
    with pytest.raises(UserError, match="temporary folder that Ray deletes"):
        check_store(Runtime(store="runs/store"))


def test_folders_are_no_addresses() -> None:
    assert not any(map(is_address, ["runs/store", "/shared/store", "./a:b/c", "C"]))


def test_a_path_of_a_mirror_tells_its_address_on_any_machine(tmp_path: Path) -> None:
    address = parse_address("s3://bucket/my ~store~41?endpoint_override=127.0.0.1:1&scheme=http")
    mirror = make_mirror(address, tmp_path)
    assert not set("%=&?: ") & set(mirror.root.name)
    path = mirror.root / "tuned" / Step("tuned", "cell", {}).folder / "model"
    assert mirror_of(path) == mirror == mirror_of(mirror.root)
    assert display_path(path) == f"s3://bucket/my ~store~41/tuned/{path.parent.name}/model"
    assert display_path(str(tmp_path / "x")) == str(tmp_path / "x")
    assert mirror_of(tmp_path / "x") is None
    with pytest.raises(UserError, match="longer than a folder's name"):
        make_mirror(parse_address(f"s3://bucket/{'p' * 300}"), tmp_path)
