"""Crops of a benchmark's images are dropped by the bounds of the selection."""

from __future__ import annotations

from stages.select.config import SelectConfig, SelectionConfig
from tests.stages.select.selecting import select


def config(**contamination: object) -> SelectConfig:
    return SelectConfig(selection=SelectionConfig.model_validate({"name": "t", "contamination": contamination}))


def test_a_crop_is_a_leak_by_either_correlation_and_its_copies_with_it(make_index) -> None:
    index = make_index(
        [{}, {"group": 0}, {}, {}, {}],
        benchmark_near=[{"image": 4, "benchmark": "vqa", "file": "near.png", "distance": 8}],
        benchmark_crops=[
            {"image": 0, "benchmark": "vqa", "file": "a.png", "distance": 9, "correlation": 0.99, "uncovered": 0.0},
            {"image": 2, "benchmark": "vqa", "file": "b.png", "distance": 9, "correlation": 0.91, "uncovered": 0.995},
            {"image": 3, "benchmark": "vqa", "file": "c.png", "distance": 0, "correlation": 0.96, "uncovered": 0.98},
            {"image": 4, "benchmark": "vqa", "file": "d.png", "distance": 0, "correlation": 1.0, "uncovered": 1.0},
        ],
    )

    def leaks(crops: object) -> list[tuple[object, ...]]:
        listed = select(index, config(crops=crops)).contamination().to_pylist()
        return [(int(row["uid"], 16), row["kind"], row["file"], row["distance"]) for row in listed]

    near = (4, "near", "near.png", 8)
    assert leaks({}) == [(0, "crop", "a.png", 9), (1, "crop", "a.png", 9), (2, "crop", "b.png", 9), near]
    assert [leak[0] for leak in leaks({"min_uncovered": 1})] == [0, 1, 4]
    assert [leak[0] for leak in leaks({"min_correlation": 0.96})] == [0, 1, 2, 3, 4]
    assert leaks(None) == [near]
