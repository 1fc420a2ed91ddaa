"""The download stage: from pairs to raw shards and a row for every attempt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from stages.artifact import Artifact
from stages.contract import Inputs, Partition, Stage, Task
from stages.download.config import DownloadConfig


class Download(Stage[DownloadConfig]):
    """Fetches the images of one source; one partition per file of pairs."""

    name = "download"

    def partitions(self, inputs: Inputs) -> Sequence[Partition]:
        """One per `pairs-NNNNN.parquet`."""
        (pairs,) = inputs["pairs"]
        return [
            Partition(name.removeprefix("pairs-").removesuffix(".parquet"), {"pairs": name})
            for name in pairs.names("pairs-*.parquet")
        ]

    def run(self, partition: Partition, task: Task) -> None:
        """Write `raw-NNNNN.tar` and `attempts-NNNNN.parquet`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        from stages.download.attempts import Stored, attempts_schema, listed_images, rows
        from stages.download.fetch import Files, web
        from stages.download.partition import Fetching
        from stages.download.rawtar import Spool, write_tar

        pairs = task.input("pairs")
        with pairs.open(partition.spec["pairs"]) as file:
            images = listed_images(pq.read_table(file, columns=["image_uid", "source", "url", "path"]))
        with Spool(task.parts) as spool:
            files = Files(pairs, self._root(task), self.config.max_bytes)
            remote = any(image.path is None for image in images)
            with self._served(task, remote) as served, web(self.config, served) as fetch:
                outcomes = Fetching(images, self.config, files, fetch, spool).run()
            stored = [(i, o) for i, o in enumerate(outcomes) if isinstance(o, Stored)]
            offsets = write_tar(
                task.out / f"raw-{partition.id}.tar",
                ((f"{images[i].image_uid}.{o.picture.extension}", spool.get(o.start, o.length)) for i, o in stored),
            )
        table = rows(
            images,
            outcomes,
            {i: offset for (i, _), offset in zip(stored, offsets, strict=True)},
            private=self.config.source.private,
        )
        pq.write_table(
            pa.Table.from_pylist(table, attempts_schema()),
            task.out / f"attempts-{partition.id}.parquet",
            compression="zstd",
        )
        task.count("images", len(images))
        task.count("success", len(stored))
        task.count("bytes", sum(o.length for _, o in stored))
        for row in table:
            if row["status"] != "success":
                task.count(f"status.{row['status']}")

    @contextmanager
    def _served(self, task: Task, remote: bool) -> Iterator[Mapping[str, str]]:
        """Host name -> ``ip:port`` while the world's server runs; empty for the real web and local files."""
        worlds: tuple[Artifact, ...] = task.inputs.get("world", ())
        if not (remote and worlds):
            yield {}
            return
        from stages.world.serve import serving

        with serving(worlds[0], worlds[0].manifest["config"]["kind"]) as served:
            yield served

    def _root(self, task: Task) -> str:
        """Where relative paths of a local source start, unless the ingest artifact holds the file."""
        images = self.config.source.images
        worlds: tuple[Artifact, ...] = task.inputs.get("world", ())
        if worlds:
            return str(worlds[0].path() / (images or ""))
        return images or ""
