"""Opening a configured benchmark: its kind, and where its files are."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from stages.base.artifact import Artifact
from stages.base.contract import Inputs
from stages.evaluate.benchmarks.base import Benchmark, Example
from stages.evaluate.benchmarks.captions import CaptionFiles
from stages.evaluate.benchmarks.vqa import VqaFiles
from stages.evaluate.config import EvaluateConfig

KINDS: dict[str, type[Benchmark]] = {"vqa": VqaFiles, "captions": CaptionFiles}


def open_benchmark(config: EvaluateConfig, inputs: Inputs) -> Benchmark:
    """The benchmark's reader and scorer."""
    return KINDS[config.benchmark.kind](config, locator(config, inputs))


def locator(config: EvaluateConfig, inputs: Inputs) -> Callable[[str], Path]:
    """Configured path -> local path, inside the world where the benchmark names one."""
    if config.benchmark.world is None:
        return Path
    world: Artifact = inputs["world"][0]
    return lambda name: world.path() / name


@lru_cache(maxsize=4)
def _listed(config: str, urls: tuple[str, ...]) -> list[list[Example]]:
    settings = EvaluateConfig.model_validate_json(config)
    benchmark = open_benchmark(settings, {"world": tuple(Artifact(url) for url in urls)})
    by_image: dict[int | str, list[Example]] = {}
    for example in benchmark.examples():
        by_image.setdefault(example.image_id, []).append(example)
    return list(by_image.values())


def examples_by_image(config: EvaluateConfig, inputs: Inputs) -> list[list[Example]]:
    """All examples, those of one image together, images in the order of first mention; read once per process."""
    return _listed(config.model_dump_json(), tuple(world.url for world in inputs.get("world", ())))
