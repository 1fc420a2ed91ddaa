"""The samples of a workspace that a list names, written down before anything changes so that a kill loses nothing."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.forgetting.forget_list import IDENTITY, ForgetList
from pipelines.lineage import Lineage
from pipelines.store import FORGET_PLAN, ArtifactDir, Store
from stages.base.artifact import Artifact
from stages.base.forgetting import Forgotten

#: There until everything in it is done. Like the file of tombstones, it holds uids and digests only.
PLAN = FORGET_PLAN
_SETS = ("pairs", "images", "touched", "digests")


@dataclass
class ForgetPlan:
    """The samples to remove from a workspace."""

    pairs: set[str] = field(default_factory=set)
    """uids of all pairs."""
    images: set[str] = field(default_factory=set)
    """image_uids that are removed with every pair."""
    touched: set[str] = field(default_factory=set)
    """image_uids of pairs that are removed singly: an artifact loses the image where no other pair of it remains."""
    shards: dict[str, int] = field(default_factory=dict)
    """Fingerprint of a `shard` artifact -> number of its samples to remove; the models trained on it saw them."""
    digests: set[str] = field(default_factory=set)
    """sha256 of the artifacts' files that hold them: cache entries made of these files are removed too."""
    date: str = ""
    """When it was requested (UTC, ISO 8601)."""

    def merged(self, unfinished: ForgetPlan) -> ForgetPlan:
        """Both plans together. Of shards in both, the counts of the unfinished one are kept: these shards may have lost
        the samples already."""
        return ForgetPlan(
            self.pairs | unfinished.pairs,
            self.images | unfinished.images,
            self.touched | unfinished.touched,
            {**self.shards, **unfinished.shards},
            self.digests | unfinished.digests,
            max(self.date, unfinished.date),
        )

    def save(self, store: Store) -> None:
        """Write it whole or not at all."""
        sets = {name: sorted(getattr(self, name)) for name in _SETS}
        _root(store).write(PLAN, json.dumps({**sets, "shards": self.shards, "date": self.date}))

    @staticmethod
    def load(store: Store) -> ForgetPlan | None:
        """The plan of an earlier run that did not complete, or None."""
        text = _root(store).read(PLAN)
        if text is None:
            return None
        content = json.loads(text)
        sets = {name: set(content[name]) for name in _SETS}
        return ForgetPlan(**sets, shards=content["shards"], date=content["date"])

    @staticmethod
    def delete(store: Store) -> None:
        """Remove the file, once everything in it is done."""
        root = _root(store)
        if root.remote:
            root._fs.rm_file(f"{root._root}/{PLAN}")
        else:
            os.unlink(f"{root.url}/{PLAN}")


def _root(store: Store) -> ArtifactDir:
    return ArtifactDir(store.tombstones.rsplit("/", 1)[0])


def resolve(lineage: Lineage, entries: ForgetList) -> ForgetPlan:
    """Look the entries of a list up in the tables that define samples (`Stage.sample_tables`), of all finished
    artifacts."""
    plan = ForgetPlan(date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))
    for table in _sample_tables(lineage, IDENTITY - {"uid"}):
        plan.images.update(table["image_uid"].filter(pa.array(entries.image_rows(table))).to_pylist())
    images = ForgetList(entries.uids | plan.images, frozenset(), frozenset(), frozenset())
    for table in _sample_tables(lineage, {"uid", "image_uid"}):
        if "uid" not in table.column_names:
            continue
        whole = images.image_rows(table)
        plan.images.update(table["image_uid"].filter(pa.array(whole)).to_pylist())
        single = table.filter(pa.array(entries.pair_rows(table) & ~whole))
        plan.pairs.update(table["uid"].filter(pa.array(whole)).to_pylist())
        plan.pairs.update(single["uid"].to_pylist())
        plan.touched.update(single["image_uid"].to_pylist())
    _count_shards(lineage, plan)
    return plan


def _sample_tables(lineage: Lineage, columns: AbstractSet[str]) -> Iterator[pa.Table]:
    """Those of the columns that each table has which defines images or pairs."""
    for stage in lineage.stages.values():
        for artifact in lineage.of_stage(stage.name) if stage.holds_samples else ():
            for name in sorted({name for pattern in stage.sample_tables for name in artifact.names(pattern)}):
                with artifact.open(name) as file:
                    parquet = pq.ParquetFile(file)
                    if "image_uid" in parquet.schema_arrow.names:
                        yield parquet.read(columns=[c for c in parquet.schema_arrow.names if c in columns])


def _count_shards(lineage: Lineage, plan: ForgetPlan) -> None:
    from stages.shard.index import ShardIndex

    forgotten = Forgotten(frozenset(plan.pairs), frozenset())
    for artifact in lineage.of_stage("shard"):
        tables = ShardIndex.open(artifact.path("index.arrow")).tables()
        samples = sum(int(pc.sum(forgotten.pair_mask(table["uid"])).as_py() or 0) for table in tables)
        if samples:
            plan.shards[artifact.fingerprint] = samples


class Scope:
    """What a plan means for each artifact: an image is removed where no pair of it remains."""

    def __init__(self, lineage: Lineage, plan: ForgetPlan) -> None:
        self._lineage = lineage
        self._plan = plan
        self._remaining: dict[str, set[str]] = {}

    def forgotten_in(self, artifact: Artifact) -> Forgotten:
        """The samples to remove from one artifact, judged by the lists of pairs it was made from."""
        plan = self._plan
        lists = self._lineage.inputs(artifact, "pairs")
        if artifact.manifest["stage"] == "ingest":
            lists = [artifact]
        known = [pairs for pairs in lists if pairs is not None]
        if not lists or len(known) < len(lists):
            # Which lists it was made from is not known, or some of them no longer exist: all others decide.
            known = self._lineage.of_stage("ingest")
        remaining: set[str] = set()
        for pairs in known:
            remaining |= self._remaining_in(pairs)
        return Forgotten(frozenset(plan.pairs), frozenset(plan.images | (plan.touched - remaining)))

    def _remaining_in(self, pairs: Artifact) -> set[str]:
        """Touched images of which a pair remains, in one `ingest` artifact."""
        if not self._plan.touched:
            return set()
        if pairs.fingerprint not in self._remaining:
            forgotten = Forgotten(frozenset(self._plan.pairs), frozenset(self._plan.touched))
            images: set[str] = set()
            for name in pairs.names("pairs-*.parquet"):
                with pairs.open(name) as file:
                    table = pq.read_table(file, columns=["uid", "image_uid"])
                remains = pc.and_(
                    forgotten.image_mask(table["image_uid"]), pc.invert(forgotten.pair_mask(table["uid"]))
                )
                images.update(table["image_uid"].filter(remains).to_pylist())
            self._remaining[pairs.fingerprint] = images
        return self._remaining[pairs.fingerprint]
