"""Pairs from shards: bytes and ids as they were written, damage named, cheap to open and to copy."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from stages.base.artifact import Artifact
from stages.shard.index import ShardIndex, checksum
from stages.tokenizer.special import SpecialIds
from stages.train.data.crop import Crop
from stages.train.data.dataset import DamagedSample
from stages.train.data.flip_text import mentions_side
from stages.train.data.pairs import PairDataset

Files = Callable[..., tuple[Artifact, Artifact]]
WHOLE = Crop.whole(8, 8)


def test_a_sample_is_its_stored_image_and_its_captions_ids_cut_and_ended(pair_files: Files) -> None:
    data = PairDataset(*pair_files([4, 3]), max_tokens=3, special=SpecialIds(eos=42))
    for number in range(7):
        sample = data.sample(number, epoch=1)
        (text,) = sample.texts(WHOLE)
        assert sample.uid == f"{number:032x}"
        assert sample.image.startswith(b"\x89PNG")
        assert text.prompt.tolist() == []
        assert text.target.tolist() == [number + 3] * min(2, 1 + number % 3) + [42]
        assert data.lengths(number, 1) == (0, len(text.target))


def test_a_copy_in_another_process_is_small_and_gives_the_same(pair_files: Files) -> None:
    shards, tokens = pair_files([20, 20])
    _indexed(shards, "repeats", [{3: 2, 21: 3}.get(number, 1) for number in range(40)])
    data = PairDataset(shards, tokens, max_tokens=8)
    before = [data.sample(number, 0) for number in range(len(data))]
    pickled = pickle.dumps(data)
    assert len(pickled) < 10_000
    copy = pickle.loads(pickled)
    for number, sample in enumerate(before):
        again = copy.sample(number, 0)
        assert (again.uid, again.repeat, again.image) == (sample.uid, sample.repeat, sample.image)
    assert [sample.seed for sample in before[40:]] == [f"{n:032x}/{repeat}" for n, repeat in ((3, 1), (21, 1), (21, 2))]


def test_an_image_only_sample_has_its_image_and_no_text(pair_files: Files) -> None:
    sources = [("s", "images")[number % 3 == 0] for number in range(9)]
    shards, tokens = pair_files([4, 5], sources, image_only=["images"])
    data = PairDataset(shards, tokens, max_tokens=8, flips=True)
    for number in range(9):
        sample = data.sample(number, 0)
        assert sample.image.startswith(b"\x89PNG")
        assert len(sample.texts(WHOLE)) == (0 if number % 3 == 0 else 1)
    assert data.image_only == {"images"}
    captioned = data.with_texts()
    assert captioned is not None
    assert captioned(np.arange(len(captioned))).tolist() == [1, 2, 4, 5, 7, 8]
    assert data.longest(np.array([0, 3]), np.zeros(2, dtype=np.int64)) == (0, 1)
    copy = pickle.loads(pickle.dumps(data))
    assert copy.image_only == {"images"}
    assert len(pickle.dumps(data)) < 10_000


def test_where_every_sample_has_a_text_none_is_looked_for(pair_files: Files) -> None:
    data = PairDataset(*pair_files([4]), max_tokens=8)
    assert data.image_only == set()
    assert data.with_texts() is None


def test_the_longest_of_many_is_found_in_whichever_shard(pair_files: Files) -> None:
    data = PairDataset(*pair_files([5, 1, 7]), max_tokens=3)
    for numbers in ([0], [3, 6, 9], [12, 4], [5], [2, 0], list(range(13))):
        lengths = [data.lengths(number, 0) for number in numbers]
        found = data.longest(np.array(numbers), np.zeros(len(numbers), dtype=np.int64))
        assert found == (0, max(target for _, target in lengths))


def test_nothing_is_opened_before_it_is_asked_for(tmp_path: Path, pair_files: Files) -> None:
    shards, tokens = pair_files([3])
    (shards.path() / "index.arrow").rename(tmp_path / "away")
    data = PairDataset(shards, tokens, max_tokens=8)
    (tmp_path / "away").rename(shards.path() / "index.arrow")
    assert len(data) == 3


def test_a_flipped_bit_is_a_damaged_sample_named_by_uid(pair_files: Files) -> None:
    shards, tokens = pair_files([3, 3])
    clean = PairDataset(shards, tokens, max_tokens=8)
    _indexed(shards, "image_xxh3", [checksum(clean.sample(number, 0).image) for number in range(6)])
    row = ShardIndex.open(shards.path("index.arrow"))[4]
    path = shards.path("train-00001.tar")
    content = bytearray(path.read_bytes())
    content[row.image_offset + row.image_length // 2] ^= 1
    path.write_bytes(content)
    data = PairDataset(shards, tokens, max_tokens=8)
    with pytest.raises(DamagedSample, match=r"train-00001\.tar") as caught:
        data.sample(4, 0)
    assert caught.value.uid == row.uid
    assert {data.sample(n, 0).uid for n in (3, 5)} == {f"{n:032x}" for n in (3, 5)}


def test_a_missing_shard_damages_its_own_samples_only(pair_files: Files) -> None:
    shards, tokens = pair_files([3, 3])
    shards.path("train-00000.tar").unlink()
    data = PairDataset(shards, tokens, max_tokens=8)
    with pytest.raises(DamagedSample, match=r"train-00000\.tar"):
        data.sample(1, 0)
    assert data.sample(3, 0).uid == f"{3:032x}"


@pytest.mark.parametrize(
    ("caption", "stays"),
    [
        ("A dog on the left.", False),
        ("right-handed batter", False),
        ("the LEFTMOST of two cats", False),
        ("ein Hund links im Bild", False),
        ("犬が左にいる", False),
        ("a bright room", True),
        ("a delicate cleft in copyrighted rock", True),
        ("", True),
    ],
)
def test_captions_that_tell_left_from_right_are_not_mirrored(caption: str, stays: bool) -> None:
    assert (not mentions_side(caption)) == stays


def test_captions_are_looked_at_only_where_images_are_mirrored(pair_files: Files, monkeypatch: Any) -> None:
    files = pair_files([1])
    monkeypatch.setattr("stages.train.data.pairs.mentions_side", lambda caption: caption == "a")  # the caption of all
    assert PairDataset(*files, max_tokens=8).sample(0, 0).flippable
    assert not PairDataset(*files, max_tokens=8, flips=True).sample(0, 0).flippable


def _indexed(shards: Artifact, name: str, values: list[int]) -> None:
    """Write a column of the index anew."""
    path = shards.path("index.arrow")
    with pa.ipc.open_file(str(path)) as reader:
        table = reader.read_all()
    field = table.schema.field(name)
    table = table.set_column(table.column_names.index(name), field, pa.array(values, field.type))
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)


def test_reading_pairs_loads_neither_torch_nor_pandas(pair_files: Files) -> None:
    # A second or more that each worker process would take to start.
    shards, tokens = pair_files([3])
    program = (
        "import sys; from stages.base.artifact import Artifact; from stages.train.data.pairs import PairDataset;"
        "from stages.train.data.sampler import BatchSampler;"
        f"data = PairDataset(Artifact({shards.url!r}), Artifact({tokens.url!r}), 8, flips=True);"
        "data.sample(0, 0); data.lengths(1, 0); BatchSampler(data, 0, 2, {'s': 1.0}).batch(0);"
        "print(sorted({'torch', 'pandas'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, text=True)
    assert told.stdout.strip() == "[]"
