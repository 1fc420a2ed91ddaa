"""What a failed run says: one line per failure, several at once, and what to do about a disk that takes no more."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from stages.base.artifact import is_remote
from stages.base.contract import UserError

_DISK = {
    errno.ENOSPC: "no space is left on this disk: free some, or place the workspace (or cluster.scratch) elsewhere",
    errno.EDQUOT: "the quota on this disk is used up: free some space, or place the workspace on another disk",
    errno.EROFS: "this file system is read-only: place the workspace (or cluster.scratch) on one that can be written",
    errno.EFBIG: "files of this size are not allowed here: raise `ulimit -f`, or place the workspace on another disk",
}
#: Below this many free bytes a short write, which some libraries report without an error number, is put down to it.
_FULL_BYTES = 1 << 20
#: What numpy's `tofile` and torch's writer of zip files say of a short write.
_SHORT_WRITES = ("requested and", "iostream error", "unexpected pos", "PytorchStreamWriter failed")


class UserErrors(UserError):
    """Several mistakes of the user: one line each."""

    def __init__(self, errors: Sequence[UserError]) -> None:
        super().__init__("\n".join(dict.fromkeys(str(error) for error in errors)))


class RunFailures(Exception):
    """Several nodes of a run failed, and not all by a mistake of the user: one line each."""

    def __init__(self, failures: Mapping[str, BaseException]) -> None:
        lines = (
            one_line(error) if isinstance(error, UserError) else f"{node}: {one_line(error)}"
            for node, error in failures.items()
        )
        super().__init__("\n".join(dict.fromkeys(lines)))


def joined(failures: Mapping[str, BaseException]) -> BaseException:
    """One error that says what all those of a run say; at least one, by node."""
    errors = list(failures.values())
    if len(errors) == 1:
        return errors[0]
    if all(isinstance(error, UserError) for error in errors):
        return UserErrors(cast("list[UserError]", errors))
    return RunFailures(failures)


def lines_of(error: BaseException) -> list[str]:
    """The lines to show for an error."""
    if isinstance(error, UserErrors | RunFailures):
        return str(error).split("\n")
    return [str(error) if isinstance(error, UserError) else one_line(error)]


def one_line(error: BaseException) -> str:
    """An exception as one line, without the traceback."""
    if type(error).__module__.startswith("ray.") and isinstance(cause := getattr(error, "cause", None), Exception):
        error = cause  # Ray's own text is the traceback in the worker
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


@contextmanager
def disk_errors_told(*folders: str) -> Iterator[None]:
    """Raises UserError for an error that means that a disk takes no more; `folders` are where the block writes."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        told = disk_error(error, folders)
        if told is None:
            raise
        raise told from error


def disk_error(error: BaseException, folders: Sequence[str]) -> UserError | None:
    """What to say of an error that means that a disk is full, over its quota or read-only; None for any other error.

    Libraries hand such errors on as their own, so those that led to it and their texts are looked at as well.
    """
    code, path = _disk_code(error)
    places = [place for place in (path, *folders, tempfile.gettempdir()) if place and not is_remote(place)]
    if code is None and _is_short_write(error) and any(_free(place) < _FULL_BYTES for place in places):
        code = errno.ENOSPC
    if code is None:
        return None
    where = path or (min(places, key=_free) if code == errno.ENOSPC else places[0])
    return UserError(f"{where}: {_DISK[code]}; what is finished is kept, and the same command resumes from there")


def _disk_code(error: BaseException) -> tuple[int | None, str]:
    """The error number of one in `_DISK` among the errors that led to this one, and the path that it names."""
    stack, visited = [error], set()
    while stack:
        current = stack.pop()
        visited.add(id(current))
        if isinstance(current, OSError) and current.errno in _DISK:
            return current.errno, str(current.filename or "")
        if isinstance(current, UserError):
            continue
        for code in _DISK:
            if os.strerror(code) in str(current):
                return code, ""
        if "Not enough free space" in str(current):  # numpy, which asks for the space beforehand
            return errno.ENOSPC, ""
        causes = (current.__cause__, current.__context__, getattr(current, "cause", None))
        stack += [cause for cause in causes if isinstance(cause, BaseException) and id(cause) not in visited]
    return None, ""


def _is_short_write(error: BaseException) -> bool:
    return any(words in str(error) for words in _SHORT_WRITES)


def _free(place: str) -> int:
    """Free bytes on the disk of a path, of which the last parts need not exist."""
    path = Path(place.removeprefix("file://")).absolute()
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    return shutil.disk_usage(existing).free
