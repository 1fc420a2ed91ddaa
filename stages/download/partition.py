"""Downloads one partition: fetches every listed image, politely and in parallel, to exactly one outcome each."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from stages.base.tombstones import Tombstones
from stages.download.attempts import FetchedImage, ListedImage
from stages.download.config import DownloadConfig
from stages.download.fetch import LocalImages, Redirect, Web, listed_location
from stages.download.host_queue import HostQueue, backoff_seconds
from stages.download.image import Inspector, VerifiedImage
from stages.download.journal import Journal
from stages.download.outcome import CONNECT, NOT_NOW, Failure, Reason
from stages.download.shared_urls import SharedImage
from stages.download.success_rate import Window
from stages.download.url import host_of

#: Seconds until a job checks again for rules that another thread is reading.
_POLL_SECONDS = 0.05


@dataclass
class _Job:
    """An image being downloaded; used by one thread at a time."""

    image: int
    """Its number in the list."""
    location: str
    """Its listed location."""
    host: str
    """Host of that location; empty for a local file."""
    url: str = ""
    """URL to request next."""
    visited: set[str] = field(default_factory=set)
    failed: int = 0
    """Failed tries so far."""
    fresh: bool = False
    """Whether a connection kept alive broke under it: perhaps its fault, so it gets connections of its own."""
    requested: bool = False
    """Whether the current turn made a request."""

    def restart(self) -> None:
        """Start over from the listed location."""
        self.url = self.location
        self.visited = {self.location}


class PartitionDownload:
    """Downloads the images of one partition into its journal."""

    def __init__(
        self,
        images: Sequence[ListedImage],
        config: DownloadConfig,
        files: LocalImages,
        web: Web,
        journal: Journal,
        forgotten: Tombstones,
        share: int = 1,
        window: Window | None = None,
    ) -> None:
        """Images with a path are read from `files`, those with a URL from `web`; results go to `journal`.

        `share`: number of partitions that run at a time and divide the limits per host among them.
        """
        self._images = images
        self._config = config
        self._files = files
        self._web = web
        self._journal = journal
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
        self._outcomes: list[FetchedImage | Failure | None] = [None] * len(images)
        self.tried = 0
        """Number of images that :meth:`run` had to try, set once it has begun."""

    def run(
        self, known: Mapping[str, FetchedImage | Failure], later: AbstractSet[int] = frozenset()
    ) -> list[FetchedImage | Failure | None]:
        """The outcome of every image, in list order; `known` are earlier outcomes by image uid.

        Those in `later` are left without one; another call fetches what has none.

        Raises any error that is not the image's (a bug, a full disk), and UserError if the success rate collapses.
        """
        jobs = []
        for i, image in enumerate(self._images):
            if self._outcomes[i] is not None:
                continue
            outcome = self._known(image, known)
            if outcome is not None:
                self._outcomes[i] = outcome
            if outcome is not None or i in later:
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

    def _known(self, image: ListedImage, known: Mapping[str, FetchedImage | Failure]) -> FetchedImage | Failure | None:
        """The outcome of an image that needs no request, or None."""
        forgotten = self._forgotten
        if image.image_uid in forgotten.images or (image.url is not None and forgotten.covers_url(image.url)):
            return Failure(Reason.FORGOTTEN)
        outcome = known.get(image.image_uid)
        if isinstance(outcome, FetchedImage) and forgotten.covers_content(outcome.sha256, outcome.source_sha256):
            return Failure(Reason.FORGOTTEN)
        return outcome

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
        """Make one request for a job: for its image, or first for the rules of its server. Raises Failure."""
        web, host = self._web, host_of(job.url)
        job.requested = False
        if status := web.dialer.dead_status(host):
            raise Failure(status, host=host)
        web.limits.check(host)
        web.rules.check(job.url)
        if file := web.rules.missing(job.url):
            if not web.rules.claim(file):
                queue.retry(number, _POLL_SECONDS)
                return
            job.requested = True
            web.read_rules(file)
            queue.move(number, host)
            return
        queue.open(host, min(self._config.max_wait, web.rules.delay(job.url) * self._share))
        job.requested = True
        # The last try is not left to a connection that the server may be closing.
        response = web(job.url, fresh=job.fresh or job.failed >= self._config.retries)
        if not isinstance(response, Redirect):
            self._end(queue, number, job, self._keep(job.image, response))
            return
        if response.url in job.visited:
            raise Failure(Reason.REDIRECT_LOOP)
        if len(job.visited) > self._config.max_redirects:
            raise Failure(Reason.TOO_MANY_REDIRECTS)
        if self._forgotten.covers_url(response.url):
            raise Failure(Reason.FORGOTTEN)
        job.url = response.url
        job.visited.add(response.url)
        queue.move(number, host_of(response.url))

    def take_over(self, image: int, outcome: SharedImage | Failure) -> None:
        """Settle an image without an outcome by what another source got for its URL."""
        if self._outcomes[image] is not None:
            return
        settled: FetchedImage | Failure | None
        if isinstance(outcome, Failure):
            settled = outcome
        else:
            listed, whole = self._images[image].hash, outcome.sha256 == outcome.source_sha256
            if listed is not None and listed[0] == "md5" and not whole:
                return  # of bytes that were not stored
            try:
                settled = self._accept(image, outcome.data, outcome.picture, outcome.sha256, outcome.source_sha256)
            except Failure as failure:
                settled = failure
        self._outcomes[image] = settled
        if isinstance(settled, Failure):
            self._journal.fail(self._images[image].image_uid, settled)

    def _keep(self, image: int, data: bytes) -> FetchedImage:
        """Verify an image's bytes and store them in the journal. Raises Failure."""
        picture = self._inspect(data)
        source_sha256 = hashlib.sha256(data).hexdigest()
        stored = picture.data
        sha256 = source_sha256 if stored is data else hashlib.sha256(stored).hexdigest()
        return self._accept(image, stored, picture, sha256, source_sha256, data)

    def _accept(
        self,
        image: int,
        stored: bytes,
        picture: VerifiedImage,
        sha256: str,
        source_sha256: str,
        fetched: bytes | None = None,
    ) -> FetchedImage:
        """Store a verified image if it is the listed one and not forgotten; `fetched`: its bytes before re-encoding,
        None if they are those that are stored. Raises Failure."""
        listed = self._images[image]
        if self._forgotten.covers_content(sha256, source_sha256):
            raise Failure(Reason.FORGOTTEN)
        hash_ok = None
        if listed.hash is not None:
            name, digits = listed.hash
            data = stored if fetched is None else fetched
            actual = source_sha256 if name == "sha256" else hashlib.md5(data, usedforsecurity=False).hexdigest()
            hash_ok = actual == digits
            if not hash_ok and self._config.hash_mismatch == "drop":
                raise Failure(Reason.HASH_MISMATCH)
        bare = VerifiedImage(b"", picture.format, picture.width, picture.height, picture.orientation)
        return self._journal.store(listed.image_uid, stored, bare, sha256, source_sha256, hash_ok)

    def _failed(self, queue: HostQueue, number: int, job: _Job, failure: Failure) -> None:
        if failure.transient and failure.retry_after > self._config.max_retry_after:
            failure = self._web.limits.refuse(failure.host, failure.retry_after)
        if not self._worth_retrying(job, failure):
            self._end(queue, number, job, failure)
            return
        delay = backoff_seconds(job.failed, self._config.backoff, self._config.max_wait)
        job.failed += 1
        if failure.reused:
            job.fresh = True
            queue.retry(number, 0.0)
            return
        # If the host itself fails, its other images need not be tried in the meantime.
        host_wide = failure.status in CONNECT or failure.status == Reason.ROBOTS_UNAVAILABLE
        job.restart()
        queue.retry(number, delay, max(failure.retry_after, delay if host_wide else 0.0), job.host)

    def _worth_retrying(self, job: _Job, failure: Failure) -> bool:
        if not failure.transient or failure.status in NOT_NOW or self._web.dialer.dead_status(failure.host):
            return False
        if job.failed < self._config.retries:
            return True
        self._web.dialer.mark_dead(failure)
        if failure.status == Reason.ROBOTS_UNAVAILABLE:
            self._web.rules.give_up(job.url, failure)
        return False

    def _end(self, queue: HostQueue, number: int, job: _Job, outcome: FetchedImage | Failure) -> None:
        self._settle(job.image, job.host, outcome)
        queue.done(number, job.requested)

    def _settle(self, image: int, host: str, outcome: FetchedImage | Failure) -> None:
        self._outcomes[image] = outcome
        if isinstance(outcome, Failure):
            self._journal.fail(self._images[image].image_uid, outcome)
        if self._window is not None:
            shown = "" if self._config.source.private else host
            self._window.add(shown, outcome.status if isinstance(outcome, Failure) else Reason.SUCCESS)
