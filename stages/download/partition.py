"""One partition: fetch every listed image, politely and in parallel, and bring each to exactly one outcome."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from stages.download.address import host_of
from stages.download.attempts import Listed, Stored
from stages.download.config import DownloadConfig
from stages.download.fetch import Files, Web, listed_location
from stages.download.image import Inspector, Picture
from stages.download.outcome import Failure
from stages.download.politeness import HostQueue, backoff_seconds
from stages.download.rawtar import Spool


class Fetching:
    """The images of one partition on their way from the list to the shard."""

    def __init__(self, images: Sequence[Listed], config: DownloadConfig, files: Files, web: Web, spool: Spool) -> None:
        """Images with a path come from `files`, those with a URL from `web`; pictures go to `spool`."""
        self._images = images
        self._config = config
        self._files = files
        self._web = web
        self._spool = spool
        self._inspect = Inspector(
            config.keep_formats,
            config.min_bytes,
            config.max_pixels,
            config.reencode_quality,
            config.decode_threads,
        )
        self._failed = [0] * len(images)  # tries so far; each entry is touched by the one thread that has the job
        self._outcomes: list[Stored | Failure | None] = [None] * len(images)

    def run(self) -> list[Stored | Failure | None]:
        """The outcome of every image, in list order. Raises what is no fault of an image (a bug, a full disk)."""
        locations: list[str] = []
        hosts: list[str] = []
        for i, image in enumerate(self._images):
            try:
                locations.append(listed_location(image.url, image.path))
            except Failure as failure:
                self._outcomes[i] = failure
                locations.append("")
            hosts.append(host_of(locations[-1]) if image.path is None else "")
        queue = HostQueue(hosts, self._config.per_host)
        threads = min(self._config.threads, max(1, len(hosts)))
        with ThreadPoolExecutor(threads, thread_name_prefix="download") as pool:
            for future in [pool.submit(self._work, queue, locations) for _ in range(threads)]:
                future.result()
        return self._outcomes

    def _work(self, queue: HostQueue, locations: Sequence[str]) -> None:
        try:
            while (job := queue.take()) is not None:
                if self._outcomes[job] is None:
                    outcome = self._attempt(self._images[job], locations[job])
                    tries = self._failed[job]
                    if isinstance(outcome, Failure) and self._worth_retrying(outcome, tries):
                        self._failed[job] = tries + 1
                        delay = backoff_seconds(tries, self._config.backoff, self._config.max_wait)
                        queue.retry(job, delay, min(outcome.retry_after, self._config.max_wait))
                        continue
                    self._outcomes[job] = outcome
                queue.done(job)
        except BaseException:
            queue.abort()
            raise

    def _attempt(self, image: Listed, location: str) -> Stored | Failure:
        try:
            data = self._files(location) if image.path is not None else self._web(location)
            picture = self._inspect(data)
        except Failure as failure:
            return failure
        source_sha256 = hashlib.sha256(data).hexdigest()
        stored = picture.data
        sha256 = source_sha256 if stored is data else hashlib.sha256(stored).hexdigest()
        bare = Picture(b"", picture.format, picture.width, picture.height, picture.orientation)
        return Stored(self._spool.put(stored), bare, len(stored), sha256, source_sha256)

    def _worth_retrying(self, failure: Failure, tries: int) -> bool:
        if not failure.transient or self._web.dialer.is_dead(failure.host):
            return False
        if tries < self._config.retries:
            return True
        self._web.dialer.bury(failure)
        return False
