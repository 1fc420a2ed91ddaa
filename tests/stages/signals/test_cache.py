"""Results are kept per family and raw shard: a new family measures alone, and no byte depends on what is kept."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from stages.base.cache import Cache
from stages.signals import registry
from stages.signals.config import SignalsConfig
from stages.signals.stage import Signals


@pytest.fixture
def make(source, run_stage):
    """Makes the artifact: `make(families, cache)`."""
    pairs, raw = source

    def make(families=("default",), cache=None, **settings):
        config = SignalsConfig.model_validate({"families": families, **settings})
        return run_stage(Signals(config), {"pairs": [pairs], "raw": [raw]}, cache=cache)

    return make


@pytest.fixture
def measured(monkeypatch):
    """Names of families, one for every partition that they were measured on."""
    from stages.signals import measure as module
    from stages.signals import stage  # noqa: F401

    names: list[str] = []
    real = module.measure

    def noted(families, *rest):
        names.extend(family.name for family in families)
        return real(families, *rest)

    monkeypatch.setattr(module, "measure", noted)
    return names


def test_every_image_is_decoded_once_for_all_families(make, decodes) -> None:
    make()
    assert len(decodes) == 4


def test_what_is_kept_is_not_measured_again_and_gives_the_same_bytes(make, decodes, measured, tmp_path) -> None:
    plain = make()
    first = make(cache=tmp_path)
    decodes.clear()
    measured.clear()
    again = make(cache=tmp_path)
    assert (decodes, measured) == ([], [])
    assert plain.manifest["files"] == first.manifest["files"] == again.manifest["files"]


def test_an_added_family_measures_alone(make, measured, decodes, tmp_path) -> None:
    make(("cheap",), tmp_path)
    decodes.clear()
    measured.clear()
    grown = make(("cheap", "faces"), tmp_path)
    assert set(measured) == {"faces"}
    assert len(decodes) == 4
    assert grown.manifest["files"] == make(("cheap", "faces")).manifest["files"]


def test_a_changed_setting_or_version_recomputes_its_family_alone(make, measured, monkeypatch, tmp_path) -> None:
    make(("cheap", "faces"), tmp_path)
    measured.clear()
    make(("cheap", "faces"), tmp_path, faces={"side": 320})
    assert set(measured) == {"faces"}
    measured.clear()
    monkeypatch.setattr(registry.family_class("tone"), "version", 99)
    make(("cheap", "faces"), tmp_path)
    assert set(measured) == {"tone"}


def test_families_that_read_no_pixels_decode_nothing(make, decodes, tmp_path, monkeypatch, other_package) -> None:
    other_package()
    make(("tone",), tmp_path)
    decodes.clear()
    make(("tone", "text", "language", "listed", "first_byte"), tmp_path)
    assert decodes == []


def test_a_kill_between_two_families_costs_only_the_other(make, measured, monkeypatch, tmp_path) -> None:
    whole = make(("cheap",))
    real, done = Cache.put, []

    def put(self: Cache, key: str, file: Path, suffix: str = "") -> None:
        if len(done) == 3:
            raise KeyboardInterrupt
        real(self, key, file, suffix)
        done.append(key)

    monkeypatch.setattr(Cache, "put", put)
    with pytest.raises(KeyboardInterrupt):
        make(("cheap",), tmp_path)
    monkeypatch.setattr(Cache, "put", real)
    measured.clear()
    resumed = make(("cheap",), tmp_path)
    # Two partitions of seven families each, of which three results were kept before the kill.
    assert len(measured) == 2 * 7 - 3
    assert resumed.manifest["files"] == whole.manifest["files"]


def test_a_kept_result_that_is_broken_is_measured_anew(make, measured, tmp_path) -> None:
    whole = make(("cheap",), tmp_path)
    for number, file in enumerate(sorted(tmp_path.rglob("*.parquet"))):
        if number % 3 == 0:
            file.write_bytes(file.read_bytes()[:40])
        elif number % 3 == 1:
            shutil.copyfile(sorted(tmp_path.rglob("*.parquet"))[number - 1], file)
    measured.clear()
    assert make(("cheap",), tmp_path).manifest["files"] == whole.manifest["files"]
    assert measured


def test_another_shard_or_list_is_another_result(source, fetched_source, run_stage, measured, tmp_path) -> None:
    pairs, raw = source
    run_stage(Signals(SignalsConfig(families=("cheap",))), {"pairs": [pairs], "raw": [raw]}, cache=tmp_path)
    measured.clear()
    # The same images with other captions: only what reads captions is measured.
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name in pairs.names("pairs-*"):
        table = pq.read_table(pairs.path(name))
        captions = pa.array([f"{text} indeed" for text in table["caption"].to_pylist()])
        pq.write_table(table.set_column(5, table.schema.field("caption"), captions), pairs.path(name))
    import json

    from stages.base.artifact import Artifact, file_sha256

    manifest = json.loads(pairs.path("manifest.json").read_text())
    for file in manifest["files"]:
        file["sha256"] = file_sha256(pairs.path(file["name"]))
    pairs.path("manifest.json").write_text(json.dumps(manifest))
    changed = Artifact(pairs.url)
    run_stage(Signals(SignalsConfig(families=("cheap",))), {"pairs": [changed], "raw": [raw]}, cache=tmp_path)
    assert set(measured) == {"text", "language", "listed"}


def test_kept_results_name_their_samples_but_hold_no_caption_and_no_address(make, tmp_path) -> None:
    make(("cheap",), tmp_path)
    import pyarrow.parquet as pq

    for file in tmp_path.rglob("*.parquet"):
        names = pq.read_schema(file).names
        assert names[:1] == ["image_uid"] or names[:2] == ["uid", "image_uid"]
        text = str(pq.read_table(file).to_pylist())
        assert "red car" not in text
        assert "http://" not in text
