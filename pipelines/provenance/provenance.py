"""The provenance of one sample: source row, attempts, signals, verdict, shard, tokens, models.

For a private source it has uids and numbers only: no caption, path or address, and nothing derived from their text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pipelines.lineage import Lineage
from pipelines.provenance.find import first, located, rows, scan
from pipelines.provenance.reasons import explain
from pipelines.state import Workspace
from pipelines.tracking.config import backend
from stages.base import verdicts
from stages.base.artifact import Artifact
from stages.base.pairs import image_uid
from stages.base.tombstones import Tombstones

_UID = re.compile(r"[0-9a-f]{32}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
#: Columns of a private source's tables that may be shown besides numbers and booleans.
_PUBLIC = frozenset({"uid", "image_uid", "source", "status", "format", "reason", "keep", "language"})
_IDENTITY = ("uid", "image_uid", "source")


@dataclass(frozen=True)
class SourceArtifacts:
    """What the workspace has of one source."""

    name: str
    private: bool
    pairs: Artifact | None
    raw: Artifact | None
    signals: Artifact | None


@dataclass
class ProvenanceReader:
    """Looks samples up in the artifacts of one configuration's workspace."""

    workspace: Workspace
    private: frozenset[str]
    stale: list[str] = field(default_factory=list)
    """Nodes read from an earlier configuration's artifact, because this one's does not exist yet."""
    _known: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    """uid -> its verdict, as far as it was looked for."""

    @cached_property
    def lineage(self) -> Lineage:
        """All artifacts of the workspace."""
        return Lineage(self.workspace.store)

    @cached_property
    def sources(self) -> list[SourceArtifacts]:
        """Every configured source."""
        names = [n.instance for n in self.workspace.dag.values() if n.stage.name == "ingest"]
        stages = ("ingest", "download", "signals")
        return [
            SourceArtifacts(name, name in self.private, *(self._artifact(f"{stage}[{name}]") for stage in stages))
            for name in names
        ]

    def _artifact(self, node_id: str) -> Artifact | None:
        node = self.workspace.dag.get(node_id)
        if node is None:
            return None
        artifact = self.workspace.artifact(node)
        latest = self.workspace.store.latest(node_id) if artifact is None else None
        if latest is not None:
            artifact = self.workspace.store.artifact_dir(
                node.stage.name, node.instance, latest["fingerprint"]
            ).artifact()
            if artifact is not None and node_id not in self.stale:
                self.stale.append(node_id)
        return artifact

    # -- lookup --------------------------------------------------------------------------------------------------
    def find(self, sample: str) -> list[dict[str, Any]]:
        """One record per image that `sample` names: a pair's uid, an image's uid, a listed URL or an image's sha256."""
        word = sample.strip()
        lower = word.lower()
        records = []
        for source in self.sources:
            if source.pairs is None:
                continue
            if _SHA256.fullmatch(lower):
                images, only = self._by_content(source, lower), None
            elif _UID.fullmatch(lower):
                images, only = self._by_uid(source, lower)
            else:
                images, only = [image_uid(source.name, word)], None
            for image in images:
                record = self._record(source, image, only)
                if record is not None:
                    records.append(record)
        return records

    def forgotten(self, sample: str) -> bool:
        """Whether the sample is among the workspace's tombstones."""
        word = sample.strip()
        tombstones = Tombstones.load(self.workspace.store.tombstones)
        return tombstones.covers_pair(word.lower(), word.lower(), word) or tombstones.covers_content(word.lower())

    def _by_uid(self, source: SourceArtifacts, uid: str) -> tuple[list[str], str | None]:
        assert source.pairs is not None
        if rows(source.pairs, "pairs-*.parquet", "image_uid", uid):
            return [uid], None
        held = self._held(uid)
        if held:
            return ([held["image_uid"]], uid) if held["source"] == source.name else ([], None)
        return [row["image_uid"] for row in scan(source.pairs, "pairs-*.parquet", "uid", uid)], uid

    def _by_content(self, source: SourceArtifacts, digest: str) -> list[str]:
        if source.raw is None:
            return []
        held = [row for c in ("sha256", "source_sha256") for row in scan(source.raw, "attempts-*.parquet", c, digest)]
        return sorted({row["image_uid"] for row in held})

    # -- records -------------------------------------------------------------------------------------------------
    def _record(self, source: SourceArtifacts, image: str, only: str | None) -> dict[str, Any] | None:
        assert source.pairs is not None
        rows_by_file = located(source.pairs, "pairs-*.parquet", "image_uid", image)
        listed = [row for _, row in rows_by_file]
        shown = [row for row in listed if only in (None, row["uid"])]
        file = rows_by_file[0][0] if rows_by_file else None
        if not shown and not self._verdict_of_image(source, image, only):
            return None
        attempts = self._attempts(source, image)
        signals = rows(source.signals, "images-*.parquet", "image_uid", image) if source.signals else []
        signal = _scalars(signals[0]) if signals else {}
        return {
            "image_uid": image,
            "source": source.name,
            "private": source.private,
            "pairs_of_this_image": len(listed),
            "attempts": [_public(row, source.private) for row in attempts],
            "signals": _public(signal, source.private),
            "pairs": [
                self._pair(source, row, file, signal, attempts[-1] if attempts else {})
                for row in (shown or self._verdict_of_image(source, image, only))
            ],
        }

    def _verdict_of_image(self, source: SourceArtifacts, image: str, only: str | None) -> list[dict[str, Any]]:
        """Verdicts on a forgotten pair, which the lists no longer contain."""
        held = self._held(only) if only is not None else None
        return [{name: held[name] for name in _IDENTITY}] if held and held["source"] == source.name else []

    def _attempts(self, source: SourceArtifacts, image: str) -> list[dict[str, Any]]:
        if source.raw is None:
            return []
        attempts: list[dict[str, Any]] = []
        for number, raw in enumerate(self.lineage.earlier(source.raw, "previous")):
            for row in rows(raw, "attempts-*.parquet", "image_uid", image):
                known = {key: value for key, value in row.items() if value is not None and key not in _IDENTITY}
                attempts.append({"retry_pass": number, "artifact": raw.fingerprint, **known})
        return attempts

    def _pair(
        self,
        source: SourceArtifacts,
        row: dict[str, Any],
        file: str | None,
        image: dict[str, Any],
        attempt: dict[str, Any],
    ) -> dict[str, Any]:
        """`file` is the pairs file with the row; the signals of its pairs are in the file of the same name."""
        uid = row["uid"]
        measured = rows(source.signals, file, "uid", uid) if source.signals is not None and file else []
        signals = _scalars(measured[0]) if measured else {}
        locations = self._locations(uid)
        return {
            "uid": uid,
            "listed": _public({key: value for key, value in row.items() if key not in _IDENTITY}, source.private),
            "signals": _public(signals, source.private),
            "verdict": self._verdict(self._held(uid, source, file), {**image, **signals}, attempt, source.private),
            "shards": locations,
            "models": self._models([location["artifact"] for location in locations]),
        }

    @cached_property
    def _verdicts(self) -> Artifact | None:
        artifact = self._artifact("select")
        return artifact if artifact is not None and artifact.names(verdicts.FILES) else None

    def _held(self, uid: str, source: SourceArtifacts | None = None, file: str | None = None) -> dict[str, Any] | None:
        """The verdict on a pair, with its uids and source; looked for first beside the file of pairs that lists it.

        Verdicts lie in the order of the lists, not of uids: where it is not known who lists a pair, all are read, up
        to that one.
        """
        if self._verdicts is None:
            return None
        if uid not in self._known:
            part = (self._number(source), (file or "").removeprefix("pairs-").removesuffix(".parquet"))
            ranges = sorted(verdicts.verdict_ranges(self._verdicts), key=lambda each: part not in each.parts)
            self._known[uid] = first(
                self._verdicts, (verdicts.verdict_file(each.number) for each in ranges), "uid", uid
            )
        return self._known[uid]

    def _number(self, source: SourceArtifacts | None) -> int:
        """Number of the source in the ranges of the verdicts; -1 where they were made from another list."""
        listed = self._verdicts.manifest["inputs"].get("pairs", []) if self._verdicts else []
        mark = source.pairs.fingerprint if source and source.pairs else None
        return listed.index(mark) if mark in listed else -1

    def _verdict(
        self, held: dict[str, Any] | None, signals: dict[str, Any], attempt: dict[str, Any], private: bool
    ) -> dict[str, Any] | None:
        if self._verdicts is None or held is None:
            return None
        row = {key: value for key, value in held.items() if key not in _IDENTITY}
        selection = self._verdicts.manifest["config"]["selection"]
        shown = {} if private else attempt
        words = explain(row["reason"], row["detail"], signals, shown, selection)
        return {**row, "words": words, "selection": selection.get("name"), "artifact": self._verdicts.fingerprint}

    def _locations(self, uid: str) -> list[dict[str, Any]]:
        """Shard and offsets of the pair in each `shard` artifact that holds it, with its tokens."""
        from stages.shard.index import ShardIndex

        locations = []
        for artifact in self.lineage.of_stage("shard"):
            index = ShardIndex.open(artifact.path("index.arrow"))
            sample = index.find(uid)
            if sample is None:
                continue
            row = index[sample]
            position = sample - index.of_shard(row.shard).start
            shard = artifact.read_json("dataset.json")["shards"][row.shard]["name"]
            locations.append(
                {
                    "artifact": artifact.fingerprint,
                    "shard": shard,
                    "sample": sample,
                    "position": position,
                    "image_offset": row.image_offset,
                    "image_length": row.image_length,
                    "text_offset": row.text_offset,
                    "json_offset": row.json_offset,
                    "tokens": self._tokens(artifact, row.shard, position),
                }
            )
        return locations

    def _tokens(self, shards: Artifact, shard: int, position: int) -> list[dict[str, Any]]:
        from stages.tokens.reader import TokenReader

        return [
            {"artifact": artifact.fingerprint, "tokens": len(TokenReader(artifact).tokens(shard, position))}
            for artifact in self.lineage.of_stage("tokens")
            if shards.fingerprint in artifact.manifest["inputs"].get("shards", ())
        ]

    def _models(self, shards: list[str]) -> list[dict[str, Any]]:
        models = self.lineage.models(shards)
        runs = backend(self.workspace.store.workspace).run_ids([model.key for model in models if model.key])
        return [
            {
                "node": model.node,
                "artifact": model.artifact.fingerprint,
                "registered": model.registered,
                "run": runs.get(model.key or ""),
                "key": model.key,
            }
            for model in models
        ]


def _scalars(row: dict[str, Any]) -> dict[str, Any]:
    """Signals without identity, hashes in bytes and lists."""
    return {k: v for k, v in row.items() if k not in _IDENTITY and not isinstance(v, bytes | list | None)}


def _public(row: dict[str, Any], private: bool) -> dict[str, Any]:
    """For a private source: numbers, booleans and the few columns that reveal nothing of its content."""
    if not private:
        return row
    return {k: v for k, v in row.items() if k in _PUBLIC or k == "artifact" or isinstance(v, bool | int | float)}
