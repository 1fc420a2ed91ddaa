"""The download stage: fetches the listed images into raw shards, with a row for every attempt."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.base.artifact import Artifact
from stages.base.contract import Inputs, Partition, Stage, StageContext
from stages.base.external_files import resolve
from stages.base.forgetting import ForgetInputs, Forgotten, Removal
from stages.download.config import DownloadConfig

if TYPE_CHECKING:
    from stages.download.attempts import ListedImage
    from stages.download.shared_urls import UrlEntry

log = logging.getLogger(__name__)


class Download(Stage[DownloadConfig]):
    """Fetches the images of one source; one partition per file of pairs.

    With an input `previous`, the artifact of the previous pass, only its transient failures are fetched again;
    everything else is taken over.
    """

    name = "download"
    version = 3
    holds_samples = True
    sample_tables = ("attempts-*.parquet",)
    keeps_clean_partitions = True

    def partitions(self, inputs: Inputs) -> Sequence[Partition]:
        """One per `pairs-NNNNN.parquet`."""
        (pairs,) = inputs["pairs"]
        return [
            Partition(name.removeprefix("pairs-").removesuffix(".parquet"), {"pairs": name})
            for name in pairs.names("pairs-*.parquet")
        ]

    def run(self, partition: Partition, context: StageContext) -> None:
        """Write `raw-NNNNN.tar` and `attempts-NNNNN.parquet`.

        Fetched bytes are also kept in ``context.scratch`` until both files are written, so a partition that is killed
        or stopped resumes where it was.
        """
        import pyarrow.parquet as pq

        from stages.download.attempts import listed_images
        from stages.download.fetch import web_urls
        from stages.download.shared_urls import shared_urls

        with context.input("pairs").open(partition.spec["pairs"]) as file:
            images = listed_images(pq.read_table(file, columns=["image_uid", "source", "url", "path", "meta"]))
        urls = {} if self.config.source.private else web_urls(images)
        with shared_urls(self.config, context, partition.id, urls) as entry:
            self._download(partition, context, images, entry)

    def _download(
        self, partition: Partition, context: StageContext, images: list[ListedImage], entry: UrlEntry | None
    ) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        from stages.base.tombstones import Tombstones
        from stages.download.attempts import FetchedImage, attempt_rows, attempts_schema, write_tar
        from stages.download.fetch import LocalImages, web
        from stages.download.hosts import iter_counts, listed_host, outcome_counts
        from stages.download.journal import Journal, PreviousPass
        from stages.download.outcome import Failure
        from stages.download.partition import PartitionDownload
        from stages.download.success_rate import Window, report

        config, private = self.config, self.config.source.private
        pairs = context.input("pairs")
        remote = any(image.path is None for image in images)
        with ExitStack() as held:
            journal = held.enter_context(
                Journal(Path(context.scratch) / "download" / partition.id, context.intermediate)
            )
            known = dict(journal.outcomes)
            if config.retry_pass:
                known |= held.enter_context(PreviousPass(context.input("previous"), partition.id)).outcomes
            served = held.enter_context(self._served(context, remote))
            fetch = held.enter_context(web(config, served, context.scratch))
            download = PartitionDownload(
                images,
                config,
                LocalImages(pairs, self._root(context), config.max_bytes),
                fetch,
                journal,
                Tombstones.load(context.tombstones),
                self._at_once(len(self.partitions(context.inputs))),
                Window(config.name, config.min_success_rate, config.watch_after) if self._rate_counts else None,
            )
            outcomes = download.run(known, entry.elsewhere() if entry else frozenset())
            if entry and None in outcomes:
                for image, shared in entry.outcomes():
                    download.take_over(image, shared)
                outcomes = download.run(known)
            stored = [(i, o) for i, o in enumerate(outcomes) if isinstance(o, FetchedImage)]
            offsets = write_tar(
                context.out / f"raw-{partition.id}.tar",
                ((f"{images[i].image_uid}.{o.picture.extension}", o.data) for i, o in stored),
            )
        table = attempt_rows(
            images, outcomes, {i: start for (i, _), start in zip(stored, offsets, strict=True)}, private
        )
        pq.write_table(
            pa.Table.from_pylist(table, attempts_schema()),
            context.out / f"attempts-{partition.id}.parquet",
            compression="zstd",
        )
        counts = outcome_counts([listed_host(image, private) for image in images], outcomes)
        pq.write_table(counts, context.intermediate / f"endings-{partition.id}.parquet")
        if self._rate_counts:
            context.report = report(iter_counts(counts))
        context.count("images", len(images))
        context.count("success", len(stored))
        context.count("bytes", sum(o.length for _, o in stored))
        for outcome in outcomes:
            if isinstance(outcome, Failure):
                context.count(f"status.{outcome.status}")

    @property
    def _rate_counts(self) -> bool:
        """Whether the success rate is meaningful: not in a retry pass, which fetches only what failed before."""
        return self.config.retry_pass == 0 and self.config.min_success_rate > 0

    def on_commit(self, reports: Sequence[Mapping[str, Any]]) -> None:
        """Stop if too few of the newest attempts succeed; warn once of each host with a low success rate."""
        if not self._rate_counts:
            return
        from stages.download import success_rate

        config = self.config
        poor = success_rate.poor_hosts(reports, config.min_success_rate, config.watch_after)
        warned: set[str] = self.__dict__.setdefault("_warned", set())
        for host in sorted(set(poor) - warned):
            warned.add(host)
            log.warning(
                "sources.%s: few images of %s can be downloaded: %s",
                config.name,
                host,
                success_rate.most_frequent(poor[host]),
            )
        success_rate.check(config.name, config.min_success_rate, config.watch_after, reports)

    def finish(self, context: StageContext) -> None:
        """Write `hosts.parquet`, unless the source is private; warn if no image at all could be fetched.

        Raises UserError if too few of all images succeeded.
        """
        import pyarrow.parquet as pq

        from stages.download import success_rate
        from stages.download.failed_source import nothing_fetched
        from stages.download.hosts import hosts_table, iter_counts, sum_counts

        counts = sum_counts(sorted(context.intermediate.glob("endings-*.parquet")))
        total = success_rate.report(iter_counts(counts))
        if self._rate_counts:
            # A stopped run that is restarted without a change fails the same way, even if nothing is left to do.
            success_rate.check(self.config.name, self.config.min_success_rate, self.config.watch_after, [total])
        if total["attempts"] and not total["success"]:
            # No error: other sources may have images, and `--retry-failed` starts from a finished download.
            log.warning("%s", nothing_fetched(self.config.name, total["reasons"]))
        if not self.config.source.private:
            pq.write_table(hosts_table(counts), context.out / "hosts.parquet", compression="zstd")

    def _at_once(self, partitions: int) -> int:
        """Number of partitions of this artifact that run at a time, over the whole cluster."""
        ray: Any = sys.modules.get("ray")
        if ray is None or not ray.is_initialized():
            return 1
        return max(1, min(partitions, int(ray.cluster_resources().get("CPU", 1) / self.cpus)))

    def _served(self, context: StageContext, remote: bool) -> AbstractContextManager[Mapping[str, str]]:
        """Host name -> ``ip:port`` of a server on this machine that stands in for it; empty for the real web."""
        from stages.world.plugin import served_hosts

        return served_hosts(context.inputs if remote else {})

    def _root(self, context: StageContext) -> str:
        """Where relative paths of a local source start, unless the ingest artifact holds the file."""
        images = self.config.source.images
        return resolve(images, context.inputs) if images else ""

    @classmethod
    def forget(cls, artifact: Artifact, inputs: ForgetInputs, forgotten: Forgotten, out: Path | None) -> Removal:
        """See `stages/download/forget.py`."""
        from stages.download.forget import forget

        return forget(artifact, inputs, forgotten, out)

    @classmethod
    def forget_scratch(cls, scratch: Path, marks: AbstractSet[str]) -> None:
        """See `stages/download/forget.py`."""
        from stages.download.forget import forget_scratch

        forget_scratch(scratch, marks)
