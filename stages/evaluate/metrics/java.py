"""The reference implementations in Java: finding Java and their jars, and starting them the same way everywhere."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Thread
from typing import IO

#: The same output whatever the user's locale: numbers with a point, UTF-8 on every stream.
OPTIONS = (
    "-Duser.language=en",
    "-Duser.country=US",
    "-Dfile.encoding=UTF-8",
    "-Dsun.stdout.encoding=UTF-8",
    "-Dstdout.encoding=UTF-8",
    "-Dsun.jnu.encoding=UTF-8",
)
#: Enough to hold the line with the reason above its stack trace.
_LINES_OF_ERRORS = 200
#: Lines of a stack trace and of Java's launcher beside the line with the reason.
_NO_REASON = ("at ", "Error occurred during initialization", "Error: Could not create", "Error: A fatal exception")
_EXCEPTION = re.compile(r"[\w$]\.[\w$]*(?:Exception|Error)\b")


class Unavailable(Exception):
    """A metric cannot be computed here: one line with what is missing and where to put it."""


@cache
def find_java() -> str:
    """The `java` program: of `JAVA_HOME` where that is set, else on the path. Raises Unavailable."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=str(Path(home, "bin"))) if home else None
    found = found or shutil.which("java")
    if found is None:
        raise Unavailable("no Java found; install a Java runtime (8 or later) and put `java` on PATH or set JAVA_HOME")
    return found


@cache
def java_version(java: str) -> int:
    """Feature release of a Java program: 8, 11, 17 ... Raises Unavailable where it does not start."""
    done = subprocess.run([java, "-version"], capture_output=True, text=True, errors="replace", check=False)
    words = done.stderr.replace('"', " ").split()
    numbers = next((w for w in words if w[:1].isdigit()), "")
    if done.returncode or not numbers:
        raise Unavailable(f"{java} does not start: {last_line(done.stderr)}")
    parts = numbers.replace("-", ".").replace("_", ".").replace("+", ".").split(".")
    return int(parts[1]) if parts[0] == "1" and len(parts) > 1 else int(parts[0])


def reference_file(*parts: str) -> Path:
    """A file of the pycocoevalcap package, found without importing it. Raises Unavailable where it is missing."""
    spec = importlib.util.find_spec("pycocoevalcap")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        if (found := Path(folder, *parts)).is_file():
            return found
    raise Unavailable(f"{'/'.join(parts)} of the package pycocoevalcap is missing; pip install pycocoevalcap==1.2")


def staged(files: Mapping[str, Path], scratch: Path) -> Path:
    """A folder that holds the files under the given names, at a path without spaces.

    The jars look for their data beside themselves and fail where the path has a space (they use a URL as a path). The
    folder holds hard links, or copies where links are not possible.
    """
    where = scratch if " " not in str(scratch.resolve()) else Path(tempfile.mkdtemp(prefix="pairmill-", dir="/tmp"))
    for name, file in files.items():
        target = where / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            _link(file.resolve(), target)
    return where


def _link(file: Path, target: Path) -> None:
    # A symbolic link would be resolved to the path with the space again.
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)


class Process:
    """A running Java program, used over its standard streams; its standard error is collected.

    A context manager: leaving it ends the program.
    """

    def __init__(self, arguments: Sequence[str], cwd: Path, options: Sequence[str] = ()) -> None:
        """`arguments` follow Java's own options, e.g. ``["-jar", "x.jar", "-stdio"]``. Raises Unavailable."""
        self._arguments = list(arguments)
        try:
            self._process = self._start(cwd, options)
        except OSError as error:
            raise Unavailable(f"{find_java()} cannot be run: {error.strerror or error}") from None
        self._errors: deque[str] = deque(maxlen=_LINES_OF_ERRORS)
        # A full pipe of standard error would stop the program.
        self._reader = Thread(target=self._listen, args=(self._process.stderr,), daemon=True)
        self._reader.start()

    def _start(self, cwd: Path, options: Sequence[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [find_java(), *OPTIONS, *options, *self._arguments],
            cwd=cwd,
            # Under the locale C, Java finds no file with a name beyond ASCII, whatever its options.
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _listen(self, stream: IO[bytes]) -> None:
        for line in stream:
            self._errors.append(line.decode("utf-8", "replace").rstrip())

    def request(self, line: str, answers: int = 1) -> list[str]:
        """Send one line and read an answer of `answers` lines. Raises Unavailable when the program died."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(line.encode("utf-8") + b"\n")
            self._process.stdin.flush()
        except (BrokenPipeError, OSError):
            raise self._died() from None
        lines = [self._process.stdout.readline() for _ in range(answers)]
        if not all(lines):
            raise self._died()
        return [found.decode("utf-8").strip() for found in lines]

    def communicate(self, text: bytes) -> bytes:
        """Send everything, close its input, and return all it writes. Raises Unavailable when it fails."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        sender = Thread(target=self._send, args=(text,), daemon=True)
        sender.start()
        found = self._process.stdout.read()
        sender.join()
        if self._process.wait():
            if not self._errors:  # Java prints on its standard output why it does not start
                self._errors.extend(found.decode("utf-8", "replace").splitlines())
            raise self._died()
        return found

    def _send(self, text: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(text)
            self._process.stdin.close()
        except OSError:  # it died; `communicate` sees its exit code
            pass

    def _died(self) -> Unavailable:
        code = self._process.wait()
        self._reader.join(timeout=5)
        what = " ".join(a for a in self._arguments[:2] if not a.startswith("-"))
        return Unavailable(f"{what or 'java'} ended with code {code}: {last_line(self.errors)}")

    @property
    def errors(self) -> str:
        """The last lines of standard error."""
        return "\n".join(self._errors)

    def close(self) -> None:
        """End the program."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None and not stream.closed:
                with suppress(OSError):
                    stream.close()
        self._process.kill()
        self._process.wait()
        self._reader.join(timeout=5)


def last_line(text: str) -> str:
    """What went wrong: the innermost cause of a stack trace, else the line that names an exception, else the last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    reasons = [line for line in lines if not line.startswith(_NO_REASON)]
    causes = [line.removeprefix("Caused by: ") for line in reasons if line.startswith("Caused by: ")]
    exceptions = [line for line in reasons if _EXCEPTION.search(line)]
    similar = [line for line in reasons if "Exception" in line or "Error" in line]
    return (causes[-1:] or exceptions or similar or reasons[-1:] or ["it printed nothing"])[0]
