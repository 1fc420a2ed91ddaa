"""One partition: fetch every listed image, politely and in parallel, and bring each to exactly one outcome."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from stages.base.tombstones import Tombstones
from stages.download.address import host_of
from stages.download.attempts import Listed, Stored
from stages.download.config import DownloadConfig
from stages.download.fetch import Files, Moved, Web, listed_location
from stages.download.image import Inspector, Picture
from stages.download.outcome import CONNECT, Failure, Reason
from stages.download.politeness import HostQueue, backoff_seconds
from stages.download.spool import Spool
from stages.download.success_rate import Window

#: Seconds until a job looks again for rules that another thread is reading.
_LOOK_AGAIN = 0.05


@dataclass
class _Job:
    """An image on its way; touched by the one thread that has it."""

    image: int
    """Its number in the list."""
    location: str
    """Where it is listed."""
    host: str
    """The host of that; empty for a local file."""
    url: str = ""
    """What is to be asked for next."""
    visited: set[str] = field(default_factory=set)
    failed: int = 0
    """Tries so far."""
    asked: bool = False
    """Whether its turn made a request."""

    def restart(self) -> None:
        """Back to the listed location."""
        self.url = self.location
        self.visited = {self.location}


class Fetching:
    """The images of one partition on their way from the list to the shard."""

    def __init__(
        self,
        images: Sequence[Listed],
        config: DownloadConfig,
        files: Files,
        web: Web,
        spool: Spool,
        forgotten: Tombstones,
        share: int = 1,
        window: Window | None = None,
    ) -> None:
        """Images with a path come from `files`, those with a URL from `web`; pictures go to `spool`.

        `share`: how many partitions run at a time and divide the limits per host among them.
        """
        self._images = images
        self._config = config
        self._files = files
        self._web = web
        self._spool = spool
        self._forgotten = forgotten
        self._share = share
        self._window = window
        self._inspect = Inspector(
            config.keep_formats,
            config.min_bytes,
            config.max_pixels,
            config.reencode_quality,
            config.decode_threads,
        )
        self._outcomes: list[Stored | Failure | None] = [None] * len(images)
        self.tried = 0
        """Images that were not among `found`, once :meth:`run` has begun."""

    def run(self, found: Mapping[str, Stored | Failure]) -> list[Stored | Failure | None]:
        """The outcome of every image, in list order; `found` are those known before, by image uid.

        Raises what is no fault of an image (a bug, a full disk), and UserError when the success rate collapses.
        """
        jobs = []
        for i, image in enumerate(self._images):
            known = self._known(image, found)
            if known is not None:
                self._outcomes[i] = known
                continue
            try:
                location = listed_location(image.url, image.path)
            except Failure as failure:
                self._settle(i, "", failure)
                continue
            job = _Job(i, location, host_of(location) if image.path is None else "")
            job.restart()
            jobs.append(job)
        self.tried += len(jobs)
        hosts = [job.host for job in jobs]
        per_host = -(-self._config.per_host // self._share)
        queue = HostQueue(hosts, per_host, self._interval, gated=True)
        most = sum(min(n, per_host) if host else n for host, n in Counter(hosts).items())
        threads = min(self._config.threads, max(1, most))
        with ThreadPoolExecutor(threads, thread_name_prefix="download") as pool:
            for future in [pool.submit(self._work, queue, jobs) for _ in range(threads)]:
                future.result()
        return self._outcomes

    def _known(self, image: Listed, found: Mapping[str, Stored | Failure]) -> Stored | Failure | None:
        """The outcome of an image that nobody needs to be asked for."""
        forgotten = self._forgotten
        if image.image_uid in forgotten.images or (image.url is not None and forgotten.covers_url(image.url)):
            return Failure(Reason.FORGOTTEN)
        known = found.get(image.image_uid)
        if isinstance(known, Stored) and forgotten.covers_content(known.sha256, known.source_sha256):
            return Failure(Reason.FORGOTTEN)
        return known

    def _interval(self, host: str) -> float:
        return 0.0 if self._web.dialer.is_served(host) else self._share / self._config.per_host_rate

    def _work(self, queue: HostQueue, jobs: Sequence[_Job]) -> None:
        try:
            while (number := queue.take()) is not None:
                job = jobs[number]
                try:
                    if job.host or job.url != job.location:
                        self._request(queue, number, job)
                    else:
                        self._end(queue, number, job, self._keep(job.image, self._files(job.location)))
                except Failure as failure:
                    self._failed(queue, number, job, failure)
        except BaseException:
            queue.abort()
            raise

    def _request(self, queue: HostQueue, number: int, job: _Job) -> None:
        """One request for a job: for its image, or first for the rules of its server. Raises Failure."""
        web, host = self._web, host_of(job.url)
        job.asked = False
        if status := web.dialer.death(host):
            raise Failure(status, host=host)
        web.notices.check(job.url)
        if file := web.notices.missing(job.url):
            if not web.notices.claim(file):
                queue.retry(number, _LOOK_AGAIN)
                return
            job.asked = True
            web.read_notice(file)
            queue.move(number, host)
            return
        queue.open(host, min(self._config.max_wait, web.notices.delay(job.url) * self._share))
        job.asked = True
        answer = web(job.url)
        if not isinstance(answer, Moved):
            self._end(queue, number, job, self._keep(job.image, answer))
            return
        if answer.url in job.visited:
            raise Failure(Reason.REDIRECT_LOOP)
        if len(job.visited) > self._config.max_redirects:
            raise Failure(Reason.TOO_MANY_REDIRECTS)
        if self._forgotten.covers_url(answer.url):
            raise Failure(Reason.FORGOTTEN)
        job.url = answer.url
        job.visited.add(answer.url)
        queue.move(number, host_of(answer.url))

    def _keep(self, image: int, data: bytes) -> Stored:
        """Check an image's bytes and put them into the spool. Raises Failure."""
        listed = self._images[image]
        picture = self._inspect(data)
        source_sha256 = hashlib.sha256(data).hexdigest()
        kept = picture.data
        sha256 = source_sha256 if kept is data else hashlib.sha256(kept).hexdigest()
        if self._forgotten.covers_content(sha256, source_sha256):
            raise Failure(Reason.FORGOTTEN)
        hash_ok = None
        if listed.hash is not None:
            name, digits = listed.hash
            found = source_sha256 if name == "sha256" else hashlib.md5(data, usedforsecurity=False).hexdigest()
            hash_ok = found == digits
            if not hash_ok and self._config.hash_mismatch == "drop":
                raise Failure(Reason.HASH_MISMATCH)
        bare = Picture(b"", picture.format, picture.width, picture.height, picture.orientation)
        return self._spool.store(listed.image_uid, kept, bare, sha256, source_sha256, hash_ok)

    def _failed(self, queue: HostQueue, number: int, job: _Job, failure: Failure) -> None:
        if not self._worth_retrying(job, failure):
            self._end(queue, number, job, failure)
            return
        delay = backoff_seconds(job.failed, self._config.backoff, self._config.max_wait)
        # Where the host itself is in trouble, its other images need not be tried meanwhile.
        host_wide = failure.status in CONNECT or failure.status == Reason.ROBOTS_UNAVAILABLE
        pause = min(max(failure.retry_after, delay if host_wide else 0.0), self._config.max_wait)
        job.failed += 1
        job.restart()
        queue.retry(number, delay, pause, job.host)

    def _worth_retrying(self, job: _Job, failure: Failure) -> bool:
        if not failure.transient or self._web.dialer.death(failure.host):
            return False
        if job.failed < self._config.retries:
            return True
        self._web.dialer.bury(failure)
        if failure.status == Reason.ROBOTS_UNAVAILABLE:
            self._web.notices.give_up(job.url, failure)
        return False

    def _end(self, queue: HostQueue, number: int, job: _Job, outcome: Stored | Failure) -> None:
        self._settle(job.image, job.host, outcome)
        queue.done(number, job.asked)

    def _settle(self, image: int, host: str, outcome: Stored | Failure) -> None:
        self._outcomes[image] = outcome
        if isinstance(outcome, Failure):
            self._spool.fail(self._images[image].image_uid, outcome)
        if self._window is not None:
            told = "" if self._config.source.private else host
            self._window.add(told, outcome.status if isinstance(outcome, Failure) else Reason.SUCCESS)
