"""The shard stage: from raw shards and verdicts to training shards with an index."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.base.artifact import Artifact, file_sha256
from stages.base.contract import Partition, Stage, StageContext, UserError
from stages.base.forgetting import ForgetInputs, Forgotten, Removal
from stages.shard.config import ShardConfig


class Shard(Stage[ShardConfig]):
    """Writes the kept pairs of all sources, mixed; one partition per training shard."""

    name = "shard"
    version = 4
    holds_samples = True
    sample_tables = ()
    reads_parts_singly = True

    def plan(self, context: StageContext) -> Sequence[Partition]:
        """One per training shard, with the places of its samples, which are gathered in the scratch folder."""
        from stages.shard.gather import gather, samples_of
        from stages.shard.plan import cut

        samples = samples_of(context.input("verdicts"), context.scratch)
        gather(context.inputs, self.config.seed, samples)
        shards = cut(samples.lengths(), self.config.max_bytes, self.config.max_samples)
        return [Partition(f"{number:05d}", {"samples": places}) for number, places in enumerate(shards)]

    def run(self, partition: Partition, context: StageContext) -> None:
        """Write `train-NNNNN.tar`, and its rows of the index for :meth:`finish`."""
        import pyarrow as pa

        from stages.shard.gather import samples_of
        from stages.shard.index import IndexRow, checksum, to_table
        from stages.shard.writer import NO_PART, ImageResizer, RawImages, ShardWriter, as_rgb_jpeg

        samples = samples_of(context.input("verdicts"), context.scratch)
        read = RawImages(context.inputs["raw"])
        side = self.config.longest_side
        one_format, quality = self.config.one_format, self.config.quality
        bound = ImageResizer(side, quality, one_format) if side is not None else None
        path = context.out / f"train-{partition.id}.tar"
        index = []
        image_only: Counter[str] = Counter()
        with ShardWriter(path) as shard:
            for sample in samples.rows(partition.spec["samples"]):
                image = read(sample)
                image = bound(image) if bound else image
                image = as_rgb_jpeg(image, quality) if one_format else image
                caption = sample["caption"] or None  # empty in an image-only source
                record = {name: sample[name] for name in ("uid", "image_uid", "source", "url", "license")}
                record |= {"caption": caption, "width": image.width, "height": image.height, "sha256": image.sha256}
                parts = {
                    image.ext: image.data,
                    "json": json.dumps(record, ensure_ascii=False, sort_keys=True).encode("utf-8"),
                }
                if caption is None:
                    image_only[sample["source"]] += 1
                else:
                    parts["txt"] = caption.encode("utf-8")
                at = {"txt": NO_PART, **shard.add(sample["uid"], parts)}
                identity = (sample["uid"], sample["image_uid"], sample["source"], int(partition.id), image.ext)
                sums = (checksum(parts[ext]) if ext in parts else None for ext in (image.ext, "txt", "json"))
                index.append(IndexRow(*identity, *at[image.ext], *at["txt"], *at["json"], sample["repeats"], *sums))
                context.count("image_bytes", len(image.data))
        table = to_table(index)
        with pa.ipc.new_file(str(context.intermediate / f"index-{partition.id}.arrow"), table.schema) as writer:
            writer.write_table(table)
        size = path.stat().st_size
        entry = {"name": path.name, "samples": len(index), "bytes": size, "sha256": file_sha256(path)}
        sources = list(dict.fromkeys(row.source for row in index))
        figures = {"entry": entry, "sources": sources, "image_only": image_only}
        (context.intermediate / f"shard-{partition.id}.json").write_text(json.dumps(figures), "utf-8")
        context.count("samples", len(index))
        context.count("bytes", size)
        context.count("shards")

    def finish(self, context: StageContext) -> None:
        """Write `index.arrow` and `dataset.json`."""
        import pyarrow as pa

        from stages.shard.index import write_index
        from stages.shard.plan import why_nothing_is_kept

        entries: list[dict[str, Any]] = []
        sources: dict[str, None] = {}
        image_only: Counter[str] = Counter()
        for part in context.parts("shard-*.json"):
            figures = json.loads(part.read_text("utf-8"))
            entries.append(figures["entry"])
            sources.update(dict.fromkeys(figures["sources"]))
            image_only.update(figures["image_only"])
        if not entries:
            raise UserError(why_nothing_is_kept(context.inputs))
        parts = context.parts("index-*.arrow")
        tables = (pa.ipc.open_file(pa.memory_map(str(part))).read_all() for part in parts)
        write_index(context.out / "index.arrow", tables, list(sources))
        dataset: dict[str, Any] = {"samples": sum(entry["samples"] for entry in entries), "shards": entries}
        if image_only:
            dataset["image_only"] = dict(sorted(image_only.items()))
        (context.out / "dataset.json").write_text(json.dumps(dataset, indent=1) + "\n", "utf-8")

    @classmethod
    def forget(cls, artifact: Artifact, inputs: ForgetInputs, forgotten: Forgotten, out: Path | None) -> Removal:
        """See `stages/shard/forget.py`."""
        from stages.shard.forget import forget

        return forget(artifact, inputs, forgotten, out)
