"""Models and data sets of a Hugging Face hub, by `org/name`, `org/name@revision` or `org/name@revision:file`.

They are fetched by huggingface_hub into its cache, and from there on are folders like any other. A hub is contacted
only where no file or folder has that path. The variables of huggingface_hub hold: HF_ENDPOINT, HF_HOME, HF_HUB_CACHE,
HF_TOKEN, and HF_HUB_OFFLINE, with which the cache alone is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sftlab.config.paths import is_hub_id, may_be_hub_id
from sftlab.errors import UserError

Kind = Literal["model", "dataset"]
Report = Callable[[int, int], None]
"""report(done, total): bytes that are fetched."""

# What a model is read from (`weights.companions`), its licence, an adapter and a packed model; no pickles.
MODEL_FILES = (
    *(
        "*.json",
        "*.safetensors",
        "*.delta",
        "*.model",
        "*.spm",
        "*.tiktoken",
        "*.txt",
        "*.jinja",
        "vocab.bpe",
        "bpe.codes",
        "prophetnet.tokenizer",
    ),
    *("LICENSE*", "LICENCE*", "USE_POLICY.md", "NOTICE", "README.md"),
)
_OTHER_COPIES = ("consolidated*", "original/*", "onnx/*", "checkpoint-*/*", "runs/*")
DATA_FILES = (".jsonl", ".ndjson", ".json", ".jsonl.gz", ".ndjson.gz", ".json.gz", ".parquet", ".zip")


@dataclass(frozen=True)
class HubId:
    """What `org/name@revision:file` names."""

    name: str
    revision: str | None
    file: str | None

    @staticmethod
    def of(text: str) -> HubId:
        rest, _, file = text.partition(":")
        name, _, revision = rest.partition("@")
        return HubId(name, revision or None, file or None)

    def __str__(self) -> str:
        return self.name + (f"@{self.revision}" if self.revision else "")


def is_on_hub(text: str) -> bool:
    """Whether a text is to be looked up on a hub: it has the form of an id, and is no path (`may_be_hub_id`)."""
    return may_be_hub_id(text, Path()) and not Path(text.partition(":")[0]).exists()


def fetch(
    text: str,
    kind: Kind = "model",
    revision: str | None = None,
    online: bool = True,
    report: Report | None = None,
) -> Path | None:
    """The folder in the cache of a model, or the file of a data set; fetched first where it is not there.

    revision: of an id that names none. online: whether the hub may be contacted; without it, what the cache lacks is
    None. Raises UserError, in one line, for what the hub does not have or does not give.
    """
    found = HubId.of(text)
    found = HubId(found.name, found.revision or revision, found.file)
    patterns = (
        [found.file]
        if found.file
        else list(MODEL_FILES if kind == "model" else map("*{}".format, DATA_FILES))
    )
    try:
        folder = _snapshot(found, kind, patterns, online, report)
    except _Lacking:
        return None
    if kind == "model" and not found.file:
        return folder
    return _data_file(folder, found, text)


class _Lacking(Exception):
    """The cache does not have it, and the hub is not to be asked."""


def _snapshot(id: HubId, kind: Kind, patterns: Sequence[str], online: bool, report: Report | None) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    def refusal(problem: str, advice: str = "") -> UserError:
        return UserError(f"is no file or folder here, and {problem}", place=id, advice=advice)

    cache = f"the cache {constants.HF_HUB_CACHE}"
    try:
        return Path(
            snapshot_download(
                id.name,
                repo_type=kind,
                revision=id.revision,
                allow_patterns=list(patterns),
                ignore_patterns=list(_OTHER_COPIES),
                local_files_only=not online,
                tqdm_class=_bar_class(report),
            )
        )
    except GatedRepoError as error:
        raise refusal(
            f"{constants.ENDPOINT} gives it to those who accept its terms",
            "accept them there, and set HF_TOKEN.",
        ) from error
    except RepositoryNotFoundError as error:
        raise refusal(
            f"{constants.ENDPOINT} has no {_named(kind)} of this name",
            "correct the path or the name, or set HF_TOKEN if it is private.",
        ) from error
    except RevisionNotFoundError as error:
        raise refusal(f"{constants.ENDPOINT} has no such revision of {id.name}", "correct it.") from error
    except LocalEntryNotFoundError as error:
        if not online:
            raise _Lacking from error
        if constants.HF_HUB_OFFLINE:
            raise refusal(
                f"{cache} does not have it whole",
                "HF_HUB_OFFLINE is set, so no hub is asked. Unset it, or fetch the files first.",
            ) from error
        raise refusal(
            f"{cache} does not have it whole, and {constants.ENDPOINT} does not answer",
            "correct the path, or try again later.",
        ) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise refusal(f"{constants.ENDPOINT} does not give it ({reason})") from error


def _named(kind: Kind) -> str:
    return {"model": "model", "dataset": "data set"}[kind]


def _data_file(folder: Path, id: HubId, text: str) -> Path:
    """The one data file of a snapshot. Raises UserError where there is none, or the text does not say which."""
    if id.file is not None:
        file = folder / id.file
        if ".." in Path(id.file).parts or not file.is_file():
            raise UserError(f"{id} has no file {id.file}", place=text, advice="correct its name.")
        return file
    found = sorted(
        file.relative_to(folder).as_posix()
        for file in folder.rglob("*")
        if file.is_file() and file.name.endswith(DATA_FILES) and not file.name.startswith(".")
    )
    if len(found) == 1:
        return folder / found[0]
    names = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")
    raise UserError(
        f"has {len(found)} files that could be the data{f' ({names})' if names else ''}",
        place=text,
        advice=f"name one, as {id}:{found[0] if found else 'FILE.jsonl'}.",
    )


def _bar_class(report: Report | None) -> Any:
    """A bar of huggingface_hub that shows nothing itself, and reports the bytes."""
    from importlib import import_module
    from io import StringIO

    tqdm: Any = import_module("tqdm.std").tqdm  # what huggingface_hub subclasses; it has no types

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            options.pop("name", None)
            super().__init__(*args, **(options | {"file": StringIO(), "disable": report is None}))

        def display(self, *_args: Any, **_options: Any) -> None:
            if report is not None and self.unit == "B" and self.total:
                report(int(self.n), int(self.total))

    return Bar


def origin_of(path: Path) -> str | None:
    """What a path in the cache is of: `org/name@commit`, with `:file` for a file; None for any other path."""
    parts = path.parts
    at = next((i for i, part in enumerate(parts) if part == "snapshots" and 0 < i < len(parts) - 1), None)
    if at is None:
        return None
    kind, _, name = parts[at - 1].partition("--")
    if kind not in ("models", "datasets") or "--" not in name:
        return None
    file = "/".join(parts[at + 2 :])
    return f"{name.replace('--', '/', 1)}@{parts[at + 1]}" + (f":{file}" if file else "")


def name_of(folder: Path) -> str:
    """What people call a model folder: its name, or `org/name` where it is in the cache."""
    origin = origin_of(folder)
    return folder.name if origin is None else origin.partition("@")[0]


def require_name(name: str) -> None:
    """Raises UserError for what is no `org/name`."""
    if not is_hub_id(name) or "@" in name or ":" in name:
        raise UserError("is no name of a model on a hub", place=name, expected="org/name")


def upload(folder: Path, name: str, private: bool, message: str) -> tuple[str, str]:
    """Makes a model `org/name` on the hub, unless it is there, and uploads a folder into it; address and commit.

    Raises UserError, in one line, for a name of another form and where the hub refuses.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    require_name(name)
    api = HfApi(endpoint=constants.ENDPOINT)
    try:
        address = api.create_repo(name, private=private, exist_ok=True)
        done = api.upload_folder(repo_id=name, folder_path=folder, commit_message=message)
    except OfflineModeIsEnabled as error:
        raise UserError(
            "HF_HUB_OFFLINE is set, so nothing is uploaded", place=name, advice="unset it."
        ) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{constants.ENDPOINT} does not take it ({reason})",
            place=name,
            advice="set HF_TOKEN to a token that may write there.",
        ) from error
    return str(address), str(done.oid)
