"""Which samples of a workspace a list means, written down before anything is touched so that a kill loses nothing."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.forgetting.wanted import Wanted
from pipelines.lineage import Lineage
from pipelines.store import ArtifactDir, Store
from stages.base.artifact import Artifact
from stages.base.forgetting import Gone

#: Beside `forgotten.json`, for as long as the work is not done. Like it, uids only.
PLAN = "forgetting.json"
_SETS = ("pairs", "images", "touched", "digests")


@dataclass
class Plan:
    """What is to go."""

    pairs: set[str] = field(default_factory=set)
    """uids of all pairs."""
    images: set[str] = field(default_factory=set)
    """image_uids that go whole, with every pair."""
    touched: set[str] = field(default_factory=set)
    """Images of pairs that go alone: gone where no other pair is left."""
    shards: dict[str, int] = field(default_factory=dict)
    """Fingerprint of a `shard` artifact -> samples of it that go; the models trained on it saw them."""
    digests: set[str] = field(default_factory=set)
    """sha256 of the raw shards and pairs files that hold them: what is cached of these goes too."""
    date: str = ""
    """When it was asked for (UTC, ISO 8601)."""

    def merged(self, other: Plan) -> Plan:
        """Both; of an unfinished one the counts stand, since its shards may have lost the samples already."""
        return Plan(
            self.pairs | other.pairs,
            self.images | other.images,
            self.touched | other.touched,
            {**self.shards, **other.shards},
            self.digests | other.digests,
            max(self.date, other.date),
        )

    def save(self, store: Store) -> None:
        """Write it whole or not at all."""
        held = {name: sorted(getattr(self, name)) for name in _SETS}
        _root(store).write(PLAN, json.dumps({**held, "shards": self.shards, "date": self.date}))

    @staticmethod
    def unfinished(store: Store) -> Plan | None:
        """What an earlier run was cut short in, or None."""
        text = _root(store).read(PLAN)
        if text is None:
            return None
        held = json.loads(text)
        sets = {name: set(held[name]) for name in _SETS}
        return Plan(**sets, shards=held["shards"], date=held["date"])

    @staticmethod
    def done(store: Store) -> None:
        """Everything it says has been done."""
        artifact_dir = _root(store)
        if artifact_dir.remote:
            artifact_dir._fs.rm_file(f"{artifact_dir._root}/{PLAN}")
        else:
            import os

            os.unlink(f"{artifact_dir.url}/{PLAN}")


def _root(store: Store) -> ArtifactDir:
    return ArtifactDir(store.tombstones.rsplit("/", 1)[0])


def resolve(lineage: Lineage, wanted: Wanted) -> Plan:
    """Look the entries of a list up in all finished `download` and `ingest` artifacts."""
    plan = Plan(date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))
    columns = {"image_uid", "url", "sha256", "source_sha256"}
    for artifact in lineage.of_stage("download"):
        for table in tables(artifact, "attempts-*.parquet", columns):
            plan.images.update(table["image_uid"].filter(pa.array(wanted.images(table))).to_pylist())
    both = Wanted(wanted.uids | plan.images, wanted.urls, frozenset(), wanted.domains)
    for artifact in lineage.of_stage("ingest"):
        for table in tables(artifact, "pairs-*.parquet", {"uid", "image_uid", "url"}):
            whole = both.images(table)
            plan.images.update(table["image_uid"].filter(pa.array(whole)).to_pylist())
            single = table.filter(pa.array(wanted.pairs(table) & ~whole))
            plan.pairs.update(table["uid"].filter(pa.array(whole)).to_pylist())
            plan.pairs.update(single["uid"].to_pylist())
            plan.touched.update(single["image_uid"].to_pylist())
    _count_shards(lineage, plan)
    return plan


def _count_shards(lineage: Lineage, plan: Plan) -> None:
    from stages.shard.index import Index

    gone = Gone(frozenset(plan.pairs), frozenset())
    for artifact in lineage.of_stage("shard"):
        uids = Index.open(artifact.path("index.arrow")).table["uid"]
        found = int(pc.sum(gone.has_pair(uids)).as_py() or 0)
        if found:
            plan.shards[artifact.fingerprint] = found


def tables(artifact: Artifact, pattern: str, columns: Iterable[str]) -> Iterable[pa.Table]:
    """Some columns of an artifact's parquet files, as far as they have them."""
    for name in artifact.names(pattern):
        with artifact.open(name) as file:
            parquet = pq.ParquetFile(file)
            yield parquet.read(columns=[c for c in parquet.schema_arrow.names if c in set(columns)])


class Scope:
    """What a plan means for each artifact: an image goes where none of its pairs is left."""

    def __init__(self, lineage: Lineage, plan: Plan) -> None:
        self._lineage = lineage
        self._plan = plan
        self._left: dict[str, set[str]] = {}

    def of(self, artifact: Artifact) -> Gone:
        """What is to go from one artifact, judged by the pairs it was made from."""
        plan = self._plan
        lists = self._lineage.inputs(artifact, "pairs")
        if artifact.manifest["stage"] == "ingest":
            lists = [artifact]
        known = [pairs for pairs in lists if pairs is not None]
        # Where the lists are gone, those of the same source that are left decide.
        known = known if len(known) == len(lists) else self._lineage.of_stage("ingest")
        left: set[str] = set()
        for pairs in known:
            left |= self._left_in(pairs)
        return Gone(frozenset(plan.pairs), frozenset(plan.images | (plan.touched - left)))

    def _left_in(self, pairs: Artifact) -> set[str]:
        """Touched images with a pair that stays, in one `ingest` artifact."""
        if not self._plan.touched:
            return set()
        if pairs.fingerprint not in self._left:
            gone = Gone(frozenset(self._plan.pairs), frozenset(self._plan.touched))
            found: set[str] = set()
            for table in tables(pairs, "pairs-*.parquet", {"uid", "image_uid"}):
                stays = pc.and_(gone.has_image(table["image_uid"]), pc.invert(gone.has_pair(table["uid"])))
                found.update(table["image_uid"].filter(stays).to_pylist())
            self._left[pairs.fingerprint] = found
        return self._left[pairs.fingerprint]
