"""Any sample by number, from any process, out of our shards or anyone's."""

from __future__ import annotations

import io
import multiprocessing
import pickle
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.base.contract import UserError
from stages.shard.reader import DamagedShard, ShardReader


def test_random_access_equals_iteration_over_shards(world: Any, shard: Callable[..., Any]) -> None:
    reader = ShardReader(shard(world.inputs()))
    in_order = [sample for n in range(len(reader.shards)) for sample in reader.iterate(n)]
    assert len(reader) == len(in_order) == len(world.captions)
    for i in reversed(range(len(reader))):
        sample = reader.sample(i)
        assert sample == in_order[i]
        assert sample.caption == reader.caption(i) == world.captions[sample.uid]
        assert sample.image_bytes == world.images[sample.uid]
    assert [caption for n in range(len(reader.shards)) for caption in reader.captions(n)] == [
        sample.caption for sample in in_order
    ]


def read_one(reader: ShardReader, i: int) -> Any:
    return reader.sample(i)


def test_a_reader_can_be_pickled_forked_and_shared_by_threads(world: Any, shard: Callable[..., Any]) -> None:
    reader = ShardReader(shard(world.inputs()))
    expected = [reader.sample(i) for i in range(len(reader))]
    copy = pickle.loads(pickle.dumps(reader))
    assert [copy.sample(i) for i in range(len(copy))] == expected
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(reader.sample, range(len(reader)))) == expected
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.starmap(read_one, [(reader, i) for i in range(5)]) == expected[:5]


def test_a_folder_reads_like_its_artifact(world: Any, shard: Callable[..., Any]) -> None:
    artifact = shard(world.inputs())
    assert ShardReader(artifact.url).sample(3) == ShardReader(artifact).sample(3)


def test_sample_numbers_outside_the_data_are_refused(world: Any, shard: Callable[..., Any]) -> None:
    reader = ShardReader(shard(world.inputs()))
    for i in (-1, len(reader)):
        with pytest.raises(IndexError, match=f"sample {i} of {len(reader)}"):
            reader.sample(i)


def test_a_cut_shard_is_named_with_sample_and_offset(world: Any, shard: Callable[..., Any]) -> None:
    artifact = shard(world.inputs())
    path = artifact.path("train-00000.tar")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DamagedShard, match=r"shard train-00000\.tar, sample [0-9a-f]{32} at offset \d+: .*ends after"):
        ShardReader(artifact).sample(6)


keys = st.text("abc/_-0123456789", min_size=1, max_size=120).filter(lambda key: not key.endswith("/"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    samples=st.dictionaries(keys, st.tuples(st.binary(max_size=1500), st.none() | st.text(max_size=50)), min_size=1),
    form=st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_any_webdataset_tar_is_indexed_on_the_fly(
    tmp_path_factory: pytest.TempPathFactory, samples: dict[str, tuple[bytes, str | None]], form: int
) -> None:
    folder = tmp_path_factory.mktemp("tars")
    if form == tarfile.USTAR_FORMAT:
        samples = {key[:90]: value for key, value in samples.items() if not key[:90].endswith("/")}
    written = []
    with tarfile.open(folder / "some.tar", "w", format=form) as tar:
        for key, (image, caption) in samples.items():
            parts = [("jpg", image)] + ([("txt", caption.encode())] if caption is not None else [])
            for ext, data in parts:
                info = tarfile.TarInfo(f"{key}.{ext}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            written.append((image, caption or ""))
    if not written:
        return
    reader = ShardReader(folder)
    assert [(s.image_bytes, s.caption) for s in reader.iterate(0)] == written


def test_json_of_a_foreign_shard_gives_uid_and_source(tmp_path: Path) -> None:
    from webdataset import TarWriter

    with TarWriter(str(tmp_path / "x-000.tar")) as tar:
        tar.write({"__key__": "000", "png": b"bytes", "json": {"uid": "u", "source": "s"}, "txt": "hello"})
    sample = ShardReader(tmp_path).sample(0)
    assert (sample.uid, sample.image_uid, sample.source, sample.caption) == ("u", "u", "s", "hello")


def test_what_is_no_shard_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no index"):
        len(ShardReader(tmp_path))
    (tmp_path / "a.tar").write_bytes(b"not a tar" * 100)
    with pytest.raises(UserError, match=r"a\.tar: at offset 0: not a readable tar"):
        len(ShardReader(tmp_path))


def test_a_sample_without_an_image_is_named_with_its_offset(tmp_path: Path) -> None:
    from webdataset import TarWriter

    with TarWriter(str(tmp_path / "a.tar")) as tar:
        tar.write({"__key__": "first", "jpg": b"picture"})
        tar.write({"__key__": "lonely", "txt": "no picture"})
    with pytest.raises(UserError, match=r"a\.tar: sample lonely at offset 3584 holds no image, only txt"):
        len(ShardReader(tmp_path))
