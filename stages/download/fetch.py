"""The bytes of one image, from the web through img2dataset or from a local folder: one attempt, typed failures."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPMessage
from pathlib import Path
from types import ModuleType
from typing import IO, cast

from stages.artifact import Artifact, is_remote
from stages.download.address import Dialer, request_url
from stages.download.config import DownloadConfig
from stages.download.opener import Limits, Opener, installed
from stages.download.outcome import Failure, Reason


def _img2dataset() -> ModuleType:
    # Before the import: albumentations asks the web for its newest version, and wandb reports crashes.
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import img2dataset.downloader

    return cast("ModuleType", img2dataset.downloader)


@dataclass(frozen=True)
class Web:
    """Fetches over HTTP with img2dataset's `download_image`."""

    dialer: Dialer
    timeout: float
    token: str

    def __call__(self, location: str) -> bytes:
        """The body of a URL that `address.request_url` made; redirects are followed. Raises Failure. Thread-safe."""
        # The directives are left to the opener, which sees them as headers and not as an error text.
        _, stream, error = _img2dataset().download_image((0, location), self.timeout, self.token, None)
        if stream is not None:
            with stream:
                return bytes(stream.getvalue())
        try:
            failure = Failure.parse(error)
        except ValueError:
            # Not the network and not the server: a bug, or this machine (no memory, no file handles).
            raise RuntimeError(f"download failed for a reason that is not the image's: {error}") from None
        raise failure


@contextmanager
def web(config: DownloadConfig, served: Mapping[str, str]) -> Iterator[Web]:
    """A fetcher for one partition; `served` maps host names to the ``ip:port`` of a world's server."""
    token = config.user_agent_token.lower()
    directives = {directive.strip().lower() for directive in config.opt_out_directives}

    def forbids(headers: HTTPMessage) -> bool:
        return bool(directives) and bool(_img2dataset().is_disallowed(headers, token, directives))

    dialer = Dialer(served, config.allow_private_hosts)
    limits = Limits(config.max_bytes, config.total_timeout, config.max_redirects)
    with installed(Opener(dialer, limits, forbids)):
        yield Web(dialer, config.timeout, token)


class Files:
    """Reads images from the ingest artifact, or else from the folder a source names."""

    def __init__(self, pairs: Artifact, root: str, max_bytes: int) -> None:
        """`root`: folder or fsspec URL that other relative paths start from."""
        self._pairs = pairs
        self._own = {entry["name"] for entry in pairs.manifest["files"]}
        self._root = root
        self._max_bytes = max_bytes

    def __call__(self, location: str) -> bytes:
        """The file's bytes. Raises Failure. Thread-safe."""
        try:
            with self._open(location) as file:
                data = file.read(self._max_bytes + 1)
        except (FileNotFoundError, ValueError):  # ValueError: a name that no file can have (a null character)
            raise Failure(Reason.MISSING_FILE) from None
        except (PermissionError, IsADirectoryError, NotADirectoryError):
            raise Failure(Reason.UNREADABLE_FILE) from None
        except OSError as error:
            # The machine's trouble, not the image's; its own text would tell the name of a perhaps private file.
            raise RuntimeError(f"a local image could not be read: {error.strerror}") from None
        if len(data) > self._max_bytes:
            raise Failure(Reason.TOO_LARGE, f"larger than {self._max_bytes} bytes")
        return data

    def _open(self, location: str) -> IO[bytes]:
        if location in self._own:
            return self._pairs.open(location)
        place = location
        if not (is_remote(location) or os.path.isabs(location)):
            place = f"{self._root.rstrip('/')}/{location}" if self._root else location
        if not is_remote(place):
            return Path(place.removeprefix("file://")).open("rb")
        import fsspec

        file: IO[bytes] = fsspec.open(place, "rb").open()
        return file


def listed_location(url: str | None, path: str | None) -> str:
    """What to fetch for a row of pairs. Raises Failure for a URL that cannot be requested."""
    if path is not None:
        return path
    if url is None:
        raise Failure(Reason.INVALID_URL)
    return request_url(url)
