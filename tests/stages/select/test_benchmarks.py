"""Looking for benchmark images among the training images."""

from __future__ import annotations

import pyarrow as pa
import pytest
from pydantic import ValidationError

from stages.contract import UserError
from stages.imagehash import perceptual_signature, pixel_sha256
from stages.select.benchmarks import contaminated
from stages.select.config import BenchmarkImages, Contamination

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture
def training(scene):
    pictures = [scene(1), scene(2), scene(3).resize((86, 86)), scene(4)]
    return pa.Table.from_pylist([{"pixel_sha256": pixel_sha256(p), **perceptual_signature(p)} for p in pictures])


def found(training, rule: Contamination, benchmarks, worlds=None) -> dict[str, list[str | None]]:
    return {f.benchmark: f.files.to_pylist() for f in contaminated(training, rule, benchmarks, worlds or {})}


def test_benchmark_images_may_lie_in_any_folder(training, scene, as_bytes, tmp_path) -> None:
    (tmp_path / "deep").mkdir()
    for n in (2, 3):
        (tmp_path / "deep" / f"{n}.png").write_bytes(as_bytes(scene(n)))
    benchmarks = {"mine": BenchmarkImages(images=str(tmp_path))}
    assert found(training, Contamination(), benchmarks) == {"mine": [None, "deep/2.png", "deep/3.png", None]}
    assert found(training, Contamination(near=None), benchmarks) == {"mine": [None, "deep/2.png", None, None]}
    assert found(training, Contamination(exact=False), benchmarks)["mine"][1] == "deep/2.png"


def test_benchmarks_are_looked_for_in_alphabetical_order(training, scene, as_bytes, world) -> None:
    worlds = {"w": world({"x/1.png": as_bytes(scene(1)), "y/4.png": as_bytes(scene(4))})}
    benchmarks = {"b": BenchmarkImages(world="w", images="x"), "a": BenchmarkImages(world="w", images="y")}
    assert list(found(training, Contamination(near=None), benchmarks, worlds)) == ["a", "b"]


@pytest.mark.parametrize(
    ("folder", "message"),
    [("none", "benchmarks.vqa: no image in 'none' of world w"), ("bad", "benchmarks.vqa: bad/x.png is not an image")],
)
def test_a_benchmark_without_readable_images_is_refused(training, world, folder: str, message: str) -> None:
    worlds = {"w": world({"bad/x.png": b"nothing"})}
    with pytest.raises(UserError, match=message):
        found(training, Contamination(), {"vqa": BenchmarkImages(world="w", images=folder)}, worlds)


def test_a_folder_that_is_not_there_is_named(training) -> None:
    with pytest.raises(UserError, match=r"benchmarks\.vqa: no folder nowhere"):
        found(training, Contamination(), {"vqa": BenchmarkImages(images="nowhere")})


def test_where_a_folder_lies_is_not_part_of_what_is_selected() -> None:
    from pipelines.fingerprint import what

    assert what(BenchmarkImages(images="here/x")) == what(BenchmarkImages(images="there/x"))
    assert what(BenchmarkImages(world="w", images="x")) != what(BenchmarkImages(world="w", images="y"))
    with pytest.raises(ValidationError, match="need a world"):
        BenchmarkImages()
