"""Where a study is tracked: a sqlite file below the store, or an MLflow server."""

from __future__ import annotations

import re
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass, urlopen

from pydantic import Field, field_validator

from sftlab.config.frozen import Frozen
from sftlab.errors import UserError
from sftlab.tracking.database import UPLOADS, sqlite_address, sqlite_path

PROBE_SECONDS = 5.0


class TrackingSettings(Frozen):
    """Where runs and models are logged; never changes a result."""

    address: str | None = Field(
        default=None,
        description="None: a sqlite file below the store (one machine). 'http(s)://HOST:PORT': an MLflow "
        "server (several nodes). 'sqlite:////ABS/FILE.db': a file elsewhere, never on NFS.",
    )
    experiment: str = Field(
        default="sftlab", min_length=1, max_length=500, description="MLflow experiment that holds the runs."
    )

    @field_validator("address")
    @classmethod
    def _known_address(cls, address: str | None) -> str | None:
        if address is None:
            return None
        parts = urlsplit(address)
        if parts.scheme in ("http", "https") and parts.hostname:
            if "@" in unquote(
                address
            ):  # anywhere: a password may contain the slashes that end a server's name
                raise ValueError(
                    "the address must not hold a user or a password, nor any other @; "
                    "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead"
                )
            if not re.fullmatch(r"[^:]+(:\d+)?|\[[^\]]+\](:\d+)?", parts.netloc):
                raise ValueError("the port of the address is no number")
            return address.rstrip("/")
        if parts.scheme == "sqlite" and address.startswith("sqlite:////"):
            if "?" in address:
                raise ValueError("in a sqlite address write %3F for a question mark; options are not read")
            return address
        raise ValueError(
            f"{address!r} is no tracking address; expected http(s)://HOST:PORT of an MLflow server, "
            "sqlite:////ABSOLUTE/PATH.db, or none for a file below the store"
        )

    @property
    def is_server(self) -> bool:
        return self.address is not None and not self.address.startswith("sqlite:")

    def uri(self, store: Path) -> str:
        """MLflow tracking URI; a sqlite file's folder is made where it is missing."""
        if self.is_server:
            assert self.address is not None
            return self.address
        file = self.sqlite_file(store)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot make the folder of the tracking database ({error.strerror})",
                place=file,
                advice="choose another store or set tracking.address.",
            ) from error
        return sqlite_address(file)

    def sqlite_file(self, store: Path) -> Path:
        """The database file where tracking is not on a server."""
        return sqlite_path(self.address) if self.address else store.resolve() / "mlflow.db"

    def artifact_location(self, store: Path) -> str | None:
        """Folder for uploaded files, next to the sqlite file; None where the server decides."""
        return None if self.is_server else (self.sqlite_file(store).parent / UPLOADS).as_uri()


def probe(address: str) -> None:
    """Find out within seconds whether an MLflow server answers at `address`.

    MLflow's own client retries an address that does not answer for minutes. Raises UserError.
    """
    advice = (
        "Start one with `mlflow server --host 127.0.0.1 --port PORT`, correct tracking.address, or leave it out "
        "to track in a sqlite file below the store."
    )
    try:
        with urlopen(f"{address}/health", timeout=PROBE_SECONDS) as answer:
            healthy = answer.read(64).strip() == b"OK"
    except HTTPError as error:
        raise UserError(
            f"something answers there, with HTTP {error.code} for /health, which is no MLflow server"
            f"{proxy_text(address)}",
            place=f"tracking.address {address}",
            value=address,
            advice=advice,
        ) from error
    except (URLError, OSError, HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise UserError(
            f"no MLflow server answers there ({reason}){proxy_text(address)}",
            place=f"tracking.address {address}",
            value=address,
            advice=advice,
        ) from error
    if not healthy:
        raise UserError(
            f"what answers there is no MLflow server{proxy_text(address)}",
            place=f"tracking.address {address}",
            value=address,
            advice=advice,
        )


def proxy_text(address: str) -> str:
    """Which proxy requests to an address go through, and how to leave it out; "" where none does."""
    parts = urlsplit(address)
    proxy = getproxies().get(parts.scheme)
    if not proxy or not parts.hostname or proxy_bypass(parts.hostname):
        return ""
    host = urlsplit(proxy).hostname or "?"  # the address may hold a password
    return f"; {parts.scheme}_proxy sends this through the proxy {host}, set no_proxy={parts.hostname} to leave it out"
