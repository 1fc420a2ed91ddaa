"""Opening a configured benchmark: its kind, and where its files are."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from stages.base.artifact import Artifact
from stages.base.contract import Inputs
from stages.base.external_files import local_path
from stages.evaluate.benchmarks.base import Benchmark, Example
from stages.evaluate.benchmarks.captions import CaptionFiles
from stages.evaluate.benchmarks.vqa import VqaFiles
from stages.evaluate.config import EvaluateConfig

KINDS: dict[str, type[Benchmark]] = {"vqa": VqaFiles, "captions": CaptionFiles}


def open_benchmark(config: EvaluateConfig, inputs: Inputs) -> Benchmark:
    """The benchmark's reader and scorer."""
    return KINDS[config.benchmark.kind](config, locator(inputs))


def locator(inputs: Inputs) -> Callable[[str], Path]:
    """File as configured -> its local path."""
    return lambda name: local_path(name, inputs)


@lru_cache(maxsize=4)
def _listed(config: str, urls: tuple[tuple[str, tuple[str, ...]], ...]) -> list[list[Example]]:
    settings = EvaluateConfig.model_validate_json(config)
    inputs = {role: tuple(Artifact(url) for url in of_role) for role, of_role in urls}
    benchmark = open_benchmark(settings, inputs)
    by_image: dict[int | str, list[Example]] = {}
    for example in benchmark.examples():
        by_image.setdefault(example.image_id, []).append(example)
    return list(by_image.values())


def examples_by_image(config: EvaluateConfig, inputs: Inputs) -> list[list[Example]]:
    """All examples, those of one image together, images in the order of first mention; read once per process."""
    urls = ((role, tuple(artifact.url for artifact in artifacts)) for role, artifacts in inputs.items())
    return _listed(config.model_dump_json(), tuple(urls))
