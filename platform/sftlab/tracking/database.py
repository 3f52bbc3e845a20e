"""MLflow's sqlite file: it appears whole, a broken one is quarantined, and its uploads are where the file is.

MLflow makes its tables in place, so that a kill leaves a file that no later command can use, and it keeps the
absolute folder of its uploads. Both are corrected here, before MLflow opens the file.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote, urlsplit

from sftlab.errors import UserError

log = logging.getLogger(__name__)
NOISY = ("alembic", "mlflow.store.db.utils")

UPLOADS = "mlartifacts"  # folder of uploaded files, next to the database
SCRATCH = ".mlflow-"  # folders in which a database is made before it gets its name
PATH_TAG = "sftlab.path"
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
# Where MLflow keeps locations of uploads: table, column.
_LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
# Where tags are: table, column of the key, column of the value.
_TAGS = (("tags", "key", "value"), ("logged_model_tags", "tag_key", "tag_value"))


def sqlite_address(file: Path) -> str:
    """The address of a sqlite file as MLflow reads it; `?` and escapes such as `%41` in the path are quoted.

    >>> sqlite_address(Path("/a/what?/50%/%41.db"))
    'sqlite:////a/what%3F/50%/%2541.db'
    """
    escaped = re.sub(r"%(?=[0-9A-Fa-f]{2})", "%25", str(file))
    return "sqlite:///" + escaped.replace("?", "%3F")


def sqlite_path(address: str) -> Path:
    """The file of a sqlite address.

    >>> str(sqlite_path("sqlite:////a/what%3F/50%/%2541.db"))
    '/a/what?/50%/%41.db'
    """
    return Path(unquote(address.removeprefix("sqlite:///")))


def prepare(file: Path, experiment: str, tags: Mapping[str, str]) -> None:
    """Make the database with its experiment where there is none or a broken one; correct the places of its uploads.

    A broken one keeps its bytes under another name. What cannot be written is left as it is.
    """
    checked_address(file)
    if file.exists() and not os.access(file.parent, os.W_OK):
        return
    with _alone(file):
        fault = fault_of(file) if file.exists() else None
        if fault is not None:
            aside = quarantine_database(file)
            log.warning("%s: %s; quarantined as %s, and everything is logged again.", file, fault, aside.name)
        if not file.exists():
            make_database(file, experiment, tags)
        _relocate(file)


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Keep other processes from preparing the same database."""
    with file.with_name(f".{file.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def fault_of(file: Path) -> str | None:
    """Why no command can use the database; None where it is sound.

    An incomplete one that holds runs is not broken: another version of MLflow made it, which MLflow itself reports.
    """
    try:
        with closing(_opened(file)) as database:
            answer = database.execute("PRAGMA quick_check(1)").fetchone()[0]
            if answer != "ok":
                return f"is damaged ({answer.splitlines()[0]})"
            tables = _tables(database)
            if "runs" in tables and database.execute("SELECT 1 FROM runs LIMIT 1").fetchone():
                return None
            found = (
                database.execute("SELECT version_num FROM alembic_version").fetchall()
                if "alembic_version" in tables
                else []
            )
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF in _DAMAGED:
            return f"is damaged ({error})"
        raise
    revision, expected = _schema()
    whole = expected <= tables and found == [(revision,)]
    return None if whole else "was interrupted while it was made"


def _schema() -> tuple[str | None, set[str]]:
    """The newest revision of the schema of the installed MLflow, and its tables."""
    import mlflow
    from alembic.script import ScriptDirectory
    from mlflow.store.tracking.dbmodels.models import SqlRun

    scripts = Path(mlflow.__file__).parent / "store" / "db_migrations"
    return ScriptDirectory(str(scripts)).get_current_head(), set(SqlRun.metadata.tables)


def quarantine_database(file: Path) -> Path:
    """Rename the database and its journals; returns the new name."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    names = (f"{file.name}.broken-{stamp}{number}" for number in ("", *(f"-{n}" for n in range(1, 1000))))
    aside = next(path for name in names if not (path := file.with_name(name)).exists())
    for ending in ("-journal", "-wal", "-shm"):
        journal = file.with_name(file.name + ending)
        if journal.exists():
            journal.replace(aside.with_name(aside.name + ending))
    return file.replace(aside)


def make_database(file: Path, experiment: str, tags: Mapping[str, str]) -> None:
    """Make the database in a folder next to its place, and give it its name when it is whole."""
    from mlflow.entities import ExperimentTag
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    for noisy in NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)
    for left in file.parent.glob(f"{SCRATCH}*"):  # of a process that was killed; whoever works holds the lock
        shutil.rmtree(left, ignore_errors=True)
    uploads = (file.parent / UPLOADS).as_uri()
    with TemporaryDirectory(prefix=SCRATCH, dir=file.parent) as scratch:
        fresh = Path(scratch) / file.name
        store = SqlAlchemyStore(checked_address(fresh), uploads)
        try:
            store.create_experiment(experiment, uploads, [ExperimentTag(k, v) for k, v in tags.items()])
        finally:
            store.engine.dispose()
        fresh.replace(file)
        remove_stray_folder(sqlite_address(fresh))


def remove_stray_folder(address: str) -> None:
    """Remove the empty folder of a quoted address, which MLflow makes without reading the quotes."""
    literal = Path(address.removeprefix("sqlite:///")).parent
    if literal != sqlite_path(address).parent:
        with suppress(OSError):  # it is not there, or it is not empty and so someone else's
            os.removedirs(literal)


def checked_address(file: Path) -> str:
    """`sqlite_address`. Raises UserError where the installed SQLAlchemy would open another file."""
    from sqlalchemy.engine import make_url

    address = sqlite_address(file)
    if (read := make_url(address).database) != str(file):
        raise UserError(
            f"the tracking database cannot have this path: SQLAlchemy reads it as {read}",
            place=file,
            advice="use a store whose path has no '?' and no '%', or set tracking.address.",
        )
    return address


def _relocate(file: Path) -> None:
    """Let the locations of uploads begin with the folder where the database is now.

    Those that another process of this MLflow set up elsewhere stay. So do those of a database that was moved alone.
    """
    uploads = file.parent / UPLOADS
    with closing(_opened(file)) as database, database:
        tables = _tables(database)
        if "experiments" not in tables:
            return
        locations = database.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall()
        for (location,) in locations:
            old = _local_folder(location or "")
            if old is None or old.name != UPLOADS or _same(old, uploads):
                continue
            if old.is_dir() and not uploads.exists():
                continue
            for table, column in _LOCATIONS:
                if column in _columns(database, table):
                    move_locations(database, table, column, location, uploads.as_uri())
            for table, key, value in _TAGS:
                if value in _columns(database, table):
                    where = f" AND {key} = '{PATH_TAG}'"
                    move_locations(database, table, value, str(old.parent), str(file.parent), where)


def move_locations(
    database: sqlite3.Connection, table: str, column: str, old: str, new: str, where: str = ""
) -> None:
    """In a column, replace the beginning `old` of paths by `new`."""
    n = len(old)
    database.execute(
        f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
        f"WHERE ({column} = ? OR substr({column}, 1, ?) = ?){where}",
        (new, n + 1, old, n + 1, f"{old}/"),
    )


def _local_folder(location: str) -> Path | None:
    """The folder of a location on this machine; None for all others."""
    parts = urlsplit(location)
    if parts.scheme == "file" and not parts.netloc:
        return Path(unquote(location.removeprefix("file://")))
    return Path(location) if location.startswith("/") else None


def _same(first: Path, second: Path) -> bool:
    if first == second:
        return True
    return first.exists() and second.exists() and first.samefile(second)


def _opened(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{file.resolve().as_uri()}?mode=rw", timeout=30, uri=True)


def _tables(database: sqlite3.Connection) -> set[str]:
    return {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _columns(database: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in database.execute(f"PRAGMA table_info({table})")}
