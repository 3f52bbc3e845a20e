"""A hub on loopback: models and data sets in memory, as huggingface_hub fetches and uploads them."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

Files = dict[str, bytes]
_API = re.compile(r"/api/(models|datasets)/([\w.-]+/[\w.-]+)/(revision|tree|preupload|commit)/([^/]+)")
_RESOLVE = re.compile(r"/(datasets/)?([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)")


@dataclass
class Hub:
    """The repositories by kind and name, each with its files by revision; and what was asked of it."""

    address: str = ""
    repositories: dict[tuple[str, str], dict[str, Files]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def put(self, name: str, files: Mapping[str, bytes], kind: str = "models", revision: str = "main") -> str:
        """Adds a repository, or a revision of one; returns its commit."""
        commit = sha1(repr((name, sorted(files.items()))).encode()).hexdigest()
        found = self.repositories.setdefault((kind, name), {})
        found[revision] = found[commit] = dict(files)
        return commit

    def commit_of(self, kind: str, name: str, revision: str) -> str | None:
        found = self.repositories.get((kind, name), {})
        if revision not in found:
            return None
        return next(key for key in found if len(key) == 40 and found[key] == found[revision])


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Nothing is written."""

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value: Any, status: int = 200, **headers: str) -> None:
        self._send(status, json.dumps(value).encode(), Content_Type="application/json", **headers)

    def _refuse(self, code: str) -> None:
        self._json({"error": code}, 404, X_Error_Code=code)

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        if found := _API.fullmatch(path):
            self._listing(*found.groups())
        elif found := _RESOLVE.fullmatch(path):
            self._file(*found.groups())
        else:
            self._refuse("RepoNotFound")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"POST {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if path == "/api/repos/create":
            given = json.loads(body)
            name = f"{given['organization']}/{given['name']}"
            self.hub.repositories.setdefault(("models", name), {})
            self._json({"url": f"{self.hub.address}/{name}", "name": name, "id": name})
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif found := _API.fullmatch(path):
            kind, name, what, revision = found.groups()
            if what == "preupload":
                files = [{"path": f["path"], "uploadMode": "regular"} for f in json.loads(body)["files"]]
                self._json({"files": [file | {"shouldIgnore": False, "oid": None} for file in files]})
            else:
                self._commit(kind, name, revision, body)
        else:
            self._refuse("RepoNotFound")

    def _commit(self, kind: str, name: str, revision: str, body: bytes) -> None:
        files: Files = {}
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        commit = self.hub.put(name, files, kind, revision)
        url = f"{self.hub.address}/{name}/commit/{commit}"
        self._json({"success": True, "commitOid": commit, "commitUrl": url})

    def _listing(self, kind: str, name: str, what: str, revision: str) -> None:
        commit = self.hub.commit_of(kind, name, revision)
        if (kind, name) not in self.hub.repositories:
            self._refuse("RepoNotFound")
        elif commit is None:
            self._refuse("RevisionNotFound")
        elif what == "revision":
            self._json(
                {"id": name, "sha": commit, "private": False, "tags": [], "siblings": [], "downloads": 0}
            )
        else:
            files = self.hub.repositories[kind, name][commit]
            entries = [{"type": "file", "path": p, "size": len(b), "oid": _oid(b)} for p, b in files.items()]
            self._json(entries)

    def _file(self, data: str | None, name: str, revision: str, path: str) -> None:
        kind = "datasets" if data else "models"
        commit = self.hub.commit_of(kind, name, revision)
        files = self.hub.repositories.get((kind, name), {}).get(revision, {})
        if commit is None or path not in files:
            self._refuse("EntryNotFound" if commit else "RevisionNotFound")
            return
        self._send(200, files[path], ETag=f'"{_oid(files[path])}"', X_Repo_Commit=commit)


def _oid(content: bytes) -> str:
    return sha256(content).hexdigest()[:40]


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that answers on loopback within the context."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
