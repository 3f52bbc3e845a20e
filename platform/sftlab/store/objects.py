"""An object store at an address (`s3://`, `gs://`), accessed through pyarrow alone."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlencode
from uuid import uuid4

from sftlab.errors import UserError
from sftlab.files import make_folder, readable_write_errors
from sftlab.store.fingerprint import CHUNK
from sftlab.store.record import PART

if TYPE_CHECKING:
    from pyarrow import fs

SCHEMES = ("s3", "gs")
OPTIONS = ("endpoint_override", "region", "scheme")
CONNECT_SECONDS = 10.0
REQUEST_SECONDS = 30.0  # without a byte
ATTEMPTS = 6  # of a request, with growing pauses: about half a minute
COPY_LIMIT = 5 * 2**30  # S3 itself copies no larger object in one piece

_ADDRESS = re.compile(r"(\w[\w+.-]*)://+([^?#]*)(?:\?(.*))?")
_SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


@dataclass(frozen=True)
class Address:
    """`scheme://bucket/prefix?option=value`, without a key or a password."""

    scheme: str
    bucket: str
    prefix: str
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        place = f"{self.scheme}://{self.base}"
        return f"{place}?{urlencode(self.options, safe=':/')}" if self.options else place

    @property
    def base(self) -> str:
        """Bucket and prefix, as pyarrow names objects."""
        return f"{self.bucket}/{self.prefix}" if self.prefix else self.bucket

    def option(self, name: str) -> str | None:
        return dict(self.options).get(name)


def is_address(text: str) -> bool:
    """Whether a text is meant as an address, and not as a folder."""
    return re.match(r"\w[\w+.-]*:/|(?:s3|gs):", text, re.IGNORECASE) is not None


def parse_address(text: str) -> Address:
    """Take an address apart. Raises UserError, which contains no secret, for what is none."""
    found = _ADDRESS.fullmatch(text)
    scheme = found[1] if found else text.partition(":")[0]
    if found is None or scheme not in SCHEMES:
        low = scheme.lower()
        raise UserError(
            f"{scheme}:{'//' if found else ''} is no place for a store",
            value=scheme,
            expected="a folder, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX",
            advice=f"write {low}://, in lowercase and with two slashes." if low in SCHEMES else "",
        )
    bucket, _, prefix = found[2].strip("/").partition("/")
    options = dict(parse_qsl(found[3] or "", keep_blank_values=True))
    given = [found[2], *map(unquote, options.values())]
    if any("@" in part for part in given) or any(
        re.search("key|secret|token|password", name, re.I) for name in options
    ):
        raise UserError(
            f"the {scheme}:// address of the store holds a key or a password, which would end in records and logs",
            advice=(
                "leave it out; credentials come from the environment (AWS_ACCESS_KEY_ID and so on) or from the node."
            ),
        )
    unknown = sorted(options.keys() - set(OPTIONS))
    parts = prefix.split("/") if prefix else []
    if not bucket or unknown or any(part in ("", ".", "..") for part in parts):
        wrong = f"unknown option {unknown[0]}" if unknown else "no bucket, or a part of the prefix is empty"
        raise UserError(
            wrong,
            place=f"{scheme}://{found[2]}",
            expected=f"{scheme}://BUCKET/PREFIX, then at most ?{'=...&'.join(OPTIONS)}=...",
        )
    endpoint = options.get("endpoint_override")
    if endpoint and (split := re.fullmatch(r"(https?):/+(.+)", endpoint)):
        options |= {"scheme": split[1], "endpoint_override": split[2]}
    return Address(scheme, bucket, prefix, tuple(sorted(options.items())))


@dataclass(frozen=True)
class Found:
    """What a listing says about an object: its bytes, and when it was written, in ns by the server's clock."""

    bytes: int
    changed: int


@dataclass(frozen=True)
class Objects:
    """The objects below an address. Names are relative to it, with `/`.

    All methods raise UserError, naming the address, where the object store refuses or does not answer.
    """

    address: Address
    filesystem: fs.FileSystem = field(compare=False)

    def read(self, name: str) -> bytes | None:
        """A small object's content, or None where there is none."""
        with self._with_readable_errors("read", name):
            try:
                with self.filesystem.open_input_stream(self._at(name)) as stream:
                    content: bytes = stream.readall()
                    return content
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes) -> None:
        """Write an object, wholly or not at all, whatever interrupts this process."""
        self._send(name, [content])

    def upload(self, source: Path, name: str) -> None:
        """Write a file's bytes. Raises UserError, too, where fewer arrive than the file has."""
        size = source.stat().st_size
        with source.open("rb") as local:
            self._send(name, iter(partial(local.read, CHUNK), b""))
        there = self.info(name)
        if there is None or there.bytes != size:
            raise self._error("written", name, "it does not have the bytes that were sent")

    def download(self, name: str, target: Path) -> tuple[int, str] | None:
        """Put an object's bytes in place at `target`; returns their number and SHA-256, None without object."""
        make_folder(target.parent)
        part = target.with_name(f".{target.name}.{uuid4().hex}{PART}")
        digest, size = sha256(), 0
        try:
            with readable_write_errors(target):
                local = part.open("wb")
            with local:
                for chunk in self.chunks(name):
                    with readable_write_errors(target):
                        local.write(chunk)
                    digest.update(chunk)
                    size += len(chunk)
                with readable_write_errors(target):
                    local.flush()
            with readable_write_errors(target):
                part.replace(target)
        except FileNotFoundError:
            return None
        finally:
            part.unlink(missing_ok=True)
        return size, digest.hexdigest()

    def chunks(self, name: str) -> Iterator[bytes]:
        """An object's bytes, piece by piece. Raises FileNotFoundError where there is none."""
        with (
            self._with_readable_errors("read", name),
            self.filesystem.open_input_stream(self._at(name)) as stream,
        ):
            while chunk := stream.read(CHUNK):
                yield chunk

    def info(self, name: str) -> Found | None:
        """Size and time of an object, or None where there is none."""
        from pyarrow import fs

        with self._with_readable_errors("read", name):
            found = self.filesystem.get_file_info(self._at(name))
        return Found(found.size, found.mtime_ns or 0) if found.type == fs.FileType.File else None

    def below(self, folder: str = "") -> dict[str, Found]:
        """All objects below a folder, by name."""
        from pyarrow import fs

        return {
            self._name(found.path): Found(found.size, found.mtime_ns or 0)
            for found in self._select(folder, recursive=True)
            if found.type == fs.FileType.File
        }

    def children(self, folder: str = "") -> set[str]:
        """Names of what is directly below a folder."""
        if self.address.scheme == "gs":  # there pyarrow lists no folder that nobody has made
            within = f"{folder}/" if folder else ""
            return {name.removeprefix(within).partition("/")[0] for name in self.below(folder)}
        return {found.base_name for found in self._select(folder, recursive=False)}

    def delete(self, name: str) -> None:
        """Delete an object, if it is there."""
        with self._with_readable_errors("deleted", name):
            try:
                self.filesystem.delete_file(self._at(name))
            except FileNotFoundError:
                return

    def delete_below(self, folder: str) -> None:
        """Delete a folder with all that is below it, if it is there."""
        with self._with_readable_errors("deleted", folder):
            try:
                self.filesystem.delete_dir(self._at(folder))
            except FileNotFoundError:
                return

    def move(self, name: str, to: str) -> None:
        """Copy an object to another name, and delete it; a kill in between leaves both."""
        there = self.info(name)
        if there is None:
            return
        with self._with_readable_errors("copied", name):
            if there.bytes < COPY_LIMIT:
                self.filesystem.copy_file(self._at(name), self._at(to))
            else:
                self._send(to, self.chunks(name))
        self.delete(name)

    def require(self) -> None:
        """Raises UserError where the bucket is not there or does not answer."""
        from pyarrow import fs

        with self._with_readable_errors("read", ""):
            if self.filesystem.get_file_info(self.address.bucket).type == fs.FileType.NotFound:
                raise UserError(
                    f"the bucket {self.address.bucket} is not there",
                    place=self.address,
                    advice="make it, or correct its name in runtime.store, AWS_REGION or the endpoint.",
                )

    def _send(self, name: str, chunks: Iterable[bytes]) -> None:
        """Write an object, in a thread that this one waits for: a signal interrupts the main thread alone.

        A stream that an exception closes leaves what it has got so far as the object, so that this is deleted then.
        """

        def send() -> None:
            with self._with_readable_errors("written", name):
                stream = self.filesystem.open_output_stream(self._at(name))
                try:
                    for chunk in chunks:
                        stream.write(chunk)
                except BaseException:
                    with suppress(OSError):
                        stream.close()
                        self.filesystem.delete_file(self._at(name))
                    raise
                stream.close()

        with ThreadPoolExecutor(1) as pool:
            pool.submit(send).result()

    def _at(self, name: str) -> str:
        return f"{self.address.base}/{name}" if name else self.address.base

    def _name(self, path: str) -> str:
        return path.removeprefix(f"{self.address.base}/")

    def _select(self, folder: str, recursive: bool) -> list[Any]:
        from pyarrow import fs

        with self._with_readable_errors("listed", folder):
            at = fs.FileSelector(self._at(folder), allow_not_found=True, recursive=recursive)
            return list(self.filesystem.get_file_info(at))

    @contextmanager
    def _with_readable_errors(self, what: str, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except (OSError, ValueError) as error:
            raise self._error(what, name, str(error)) from None  # the cause may hold what is left out here

    def _error(self, what: str, name: str, reason: str) -> UserError:
        for secret in filter(None, map(os.environ.get, _SECRETS)):
            reason = reason.replace(secret, "***")
        return UserError(
            f"{name or 'the bucket'} cannot be {what}: {reason}",
            place=self.address,
            advice=(
                "what is finished is kept; look at the bucket's name, AWS_REGION, the endpoint, the network, the "
                "credentials and the rights of this machine, then run again."
            ),
        )


@cache
def open_objects(address: Address) -> Objects:
    """The objects at an address, with the credentials of this process's environment. Raises as `endpoint_of` does."""
    from pyarrow import fs

    if address.scheme == "gs":
        return Objects(
            address,
            fs.GcsFileSystem(
                scheme=address.option("scheme") or "https",
                endpoint_override=address.option("endpoint_override"),
                anonymous=address.option("endpoint_override") is not None,
                retry_time_limit=timedelta(seconds=REQUEST_SECONDS),
            ),
        )
    scheme, endpoint = endpoint_of(address)
    return Objects(
        address,
        fs.S3FileSystem(
            region=address.option("region") or _region(address.bucket, endpoint),
            scheme=scheme,
            endpoint_override=endpoint,
            connect_timeout=CONNECT_SECONDS,
            request_timeout=REQUEST_SECONDS,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
        ),
    )


def endpoint_of(address: Address) -> tuple[str | None, str | None]:
    """Scheme and server of an s3:// address; of the environment where it names none itself, else None for AWS.

    Raises UserError where the environment's has a user or a password, which would end in messages of the server.
    """
    if address.option("endpoint_override") is not None:
        return address.option("scheme"), address.option("endpoint_override")
    name = next((n for n in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL") if os.environ.get(n)), None)
    if name is None:
        return address.option("scheme"), None
    before, _, after = os.environ[name].partition("://")
    if "@" in (after or before):
        raise UserError(
            "has a user or a password, which no S3 server takes there",
            place=name,
            advice=(
                "leave it out. Keys come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or from the node."
            ),
        )
    return (before, after.rstrip("/")) if after else (None, before)


def _region(bucket: str, endpoint: str | None) -> str | None:
    """The region of a bucket of AWS; None leaves it to the defaults of pyarrow, as for another server."""
    from pyarrow import fs

    named = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if named or endpoint is not None:
        return named
    try:
        found: str = fs.resolve_s3_region(bucket)
        return found
    except OSError:  # not there, or no answer: `Objects.require` says so with an address
        return None
