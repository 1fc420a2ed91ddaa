"""Forgotten samples: listed again, they stay out, and the list says why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.base.pairs import image_uid, pair_uid
from stages.base.tombstones import Tombstones, domain_digest, url_digest
from stages.ingest.config import IngestConfig
from stages.ingest.plugins import source_config
from stages.ingest.stage import Ingest


@pytest.mark.parametrize(
    ("tombstones", "gone"),
    [
        (Tombstones(pairs=frozenset({pair_uid("test", "http://x.test/0.jpg", "caption 0")})), {0}),
        (Tombstones(images=frozenset({image_uid("test", "http://x.test/1.jpg")})), {1, 3}),
        (Tombstones(urls=frozenset({url_digest("http://x.test/1.jpg")})), {1, 3}),
        (Tombstones(domains=frozenset({domain_digest("test")})), {0, 1, 2, 3}),
        (Tombstones(sha256=frozenset({"0" * 64})), set()),
    ],
)
def test_listed_pairs_that_are_forgotten_are_rejects(
    run_stage: Callable[..., Any],
    pairs: Any,
    rejects: Any,
    tsv: Any,
    tmp_path: Path,
    tombstones: Tombstones,
    gone: set[int],
) -> None:
    lines = [f"caption {n}\thttp://x.test/{n % 2}.jpg".encode() for n in range(4)]
    config = IngestConfig(name="test", source=source_config("test", {"kind": "cc3m", "paths": [tsv(*lines)]}))
    (tmp_path / "forgotten.json").write_text(tombstones.to_json())
    artifact = run_stage(Ingest(config), {}, tombstones=tmp_path / "forgotten.json")
    assert rejects(artifact) == [("list.tsv", n, "forgotten") for n in sorted(gone)]
    assert {row["caption"] for row in pairs(artifact)} == {f"caption {n}" for n in range(4) if n not in gone}
