"""Writing to disk: folders, files that appear together or not at all, and refusals in words."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from sftlab.errors import UserError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# safetensors and tokenizers hand on what the system refuses as an exception of their own, which ends with this.
_RUST_ERROR = re.compile(r"\(os error (\d+)\)")


@contextmanager
def readable_write_errors(path: Path) -> Iterator[None]:
    """Turns a refusal of the file system (a full disk, no permission) into a UserError that names the path."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise _refused(path, error.errno, reason) from error
    except Exception as error:
        found = _RUST_ERROR.search(str(error))
        if found is None:
            raise
        raise _refused(path, int(found[1]), os.strerror(int(found[1]))) from error


def _refused(path: Path, code: int | None, reason: str) -> UserError:
    advice = "free some space or write elsewhere." if code in _FULL else "write elsewhere."
    return UserError(f"cannot be written: {reason}", place=path, advice=advice)


def home_folder() -> Path:
    """The user's home folder. Raises UserError where there is none, as for the users of some containers."""
    try:
        return Path.home()
    except RuntimeError as error:
        raise UserError(
            "is not set, and this user has no home folder", place="HOME", advice="set HOME to a folder."
        ) from error


def make_folder(path: Path) -> None:
    """Make a folder, with those above it, where it is missing. Raises UserError where that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _no_folder(path, error) from error


def _no_folder(path: Path, error: OSError) -> UserError:
    reason = "a file is in the way" if isinstance(error, FileExistsError) else error.strerror
    return UserError(f"cannot be made a folder: {reason}", place=path, advice="give another folder.")


def _made(path: Path) -> bool:
    """`make_folder`; whether the folder was missing. It may be gone again where another call removes it."""
    try:
        path.mkdir(parents=True)
    except FileExistsError as error:
        in_the_way = path.is_file() or (path.is_symlink() and not path.is_dir())
        if in_the_way:
            raise _no_folder(path, error) from error
        return False
    except OSError as error:
        raise _no_folder(path, error) from error
    return True


def may_write(folder: Path) -> bool:
    """Whether this user may write in a folder; of one that is missing, in the nearest one above it."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    return os.access(there, os.W_OK)


@contextmanager
def claimed(folder: Path, output: Path | None = None) -> Iterator[None]:
    """Makes a folder where it is missing, and holds it for this call; one that stays empty is removed again.

    output: what a refusal names, where it is not the folder. Raises UserError at once where the folder cannot be
    written, where another call holds it, and where the file system knows no locks.
    """
    shown = output or folder
    fresh = _made(folder)
    busy = UserError(
        "another call writes there at this moment",
        place=shown,
        advice="wait for its end, or give another folder.",
    )
    with readable_write_errors(shown):
        try:
            held = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # its call has just ended
            raise busy from None
    try:
        if not _locked(held, shown) or not _is_at(held, folder):
            raise busy
        try:
            with readable_write_errors(shown):
                probe = folder / f".{uuid4().hex}.part"
                probe.touch()
                probe.unlink()
            yield
        finally:
            if fresh and _is_at(held, folder):
                with suppress(OSError):  # not empty: the results are there
                    folder.rmdir()
    finally:
        os.close(held)


def _locked(held: int, shown: Path) -> bool:
    """Locks an open folder; False where another call holds it."""
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise UserError(
            f"cannot be locked ({error.strerror})",
            place=shown,
            expected="a file system with flock",
            advice="write elsewhere.",
        ) from error
    return True


def _is_at(held: int, folder: Path) -> bool:
    """Whether an open folder still has this name: another call may have removed or renamed it before it was locked."""
    try:
        return os.path.samestat(os.fstat(held), folder.stat())
    except OSError:
        return False


@contextmanager
def new_output(target: Path, check: Callable[[Path], object]) -> Iterator[Path]:
    """A path in a hidden sibling of `target`; what the block writes there takes the name `target` when the block ends.

    check: raises UserError where `target` may not be written. The sibling is held for this call and removed after it;
    what a killed call left in it is removed. Raises UserError as `claimed`.
    """
    check(target)
    make_folder(target.absolute().parent)
    place = target.absolute().parent / f".{target.absolute().name}.part"
    with claimed(place, target):
        try:
            check(target)  # another call may have ended since
            for rest in place.iterdir():
                shutil.rmtree(rest) if rest.is_dir() and not rest.is_symlink() else rest.unlink()
            yield place / "new"
            with readable_write_errors(target):
                (place / "new").rename(target)
        finally:
            shutil.rmtree(place, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: to a temporary name, flushed to disk, then put in place.

    Several processes may write the same file at once; the last one wins.
    """
    make_folder(path.parent)
    part = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        with part.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_together(folder: Path, files: Mapping[str, Callable[[Path], object]]) -> None:
    """Write files below `folder`, each by its function of a path; they get their names when all are written.

    Raises UserError naming the file that cannot be written; nothing new is left then.
    """
    fresh = not folder.exists()
    make_folder(folder)
    parts = {name: folder / f".{name}.part" for name in files}
    try:
        for name, write in files.items():
            with readable_write_errors(folder / name):
                write(parts[name])
        for name, part in parts.items():
            with readable_write_errors(folder / name):
                part.replace(folder / name)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
        if fresh:
            with suppress(OSError):  # not empty: the files are there
                folder.rmdir()


def bytes_text(count: float) -> str:
    """A number of bytes in the unit that suits it, such as 1.5 GB; decimal units."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            break
        count /= 1000
    return f"{count:,.0f} {unit}" if count >= 10 or unit == "B" else f"{count:,.1f} {unit}"
