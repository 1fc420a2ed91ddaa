"""The files of a scored benchmark: predictions, scores with their protocol, per-sample scores, a few samples."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.base.artifact import Artifact, file_sha256
from stages.evaluate.benchmarks.base import Result
from stages.evaluate.config import EvaluateConfig
from stages.evaluate.generate import prompt_of


def write_results(
    config: EvaluateConfig, model: Artifact, result: Result, images: int, locate: Callable[[str], Path], out: Path
) -> None:
    """Write `predictions.json`, `scores.json`, `samples.parquet` and `samples.json`."""
    content = {
        "benchmark": config.name,
        "kind": config.benchmark.kind,
        "scores": result.scores,
        "protocol": {**protocol(config, model, result, images, locate), **result.protocol},
    }
    _write(out / "predictions.json", result.predictions)
    _write(out / "scores.json", content)
    _write(out / "samples.json", _spread(result.per_sample, config.samples))
    pq.write_table(pa.table(result.per_sample), out / "samples.parquet", compression="zstd")


def protocol(
    config: EvaluateConfig, model: Artifact, result: Result, images: int, locate: Callable[[str], Path]
) -> dict[str, Any]:
    """How the texts were generated, and the files they were scored on."""
    benchmark = config.benchmark
    record = model.read_json("train.json")
    return {
        "split": benchmark.split,
        "split_sha256": {Path(file).name: file_sha256(locate(file)) for file in benchmark.lists()},
        "n": len(result.predictions),
        "images": images,
        "model": model.fingerprint,
        "task": benchmark.task,
        "tokenizer": file_sha256(model.path("tokenizer/tokenizer.json")),
        "image_size": record["preprocessing"]["image_size"],
        "prompt": prompt_of(record, benchmark),
        "beams": benchmark.beams,
        "max_new_tokens": benchmark.max_new_tokens,
        "min_new_tokens": benchmark.min_new_tokens,
        "length_penalty": benchmark.length_penalty,
        "texts_per_batch": config.texts_per_batch,
    }


def _spread(columns: dict[str, list[Any]], most: int) -> list[dict[str, Any]]:
    rows = len(next(iter(columns.values()), []))
    taken = [i * rows // min(most, rows) for i in range(min(most, rows))]
    return [{name: values[row] for name, values in columns.items()} for row in taken]


def _write(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
