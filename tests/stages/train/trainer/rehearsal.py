"""Rehearsing a training run at a fraction of its size: real ranks, real engines, and the memory each of them takes."""

from __future__ import annotations

import ctypes
import json
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from models import registry
from models.common.safetensors_file import write_safetensors
from models.common.weights import INDEX, blocks
from stages.tokenizer.special import SpecialIds
from stages.train.config import OptimizationConfig, PhaseConfig
from stages.train.job import TrainingJob
from tests.stages.train.trainer.launch_ranks import launch_ranks


def write_folder(folder: Path, config: Any, make: Any, dtype: torch.dtype, files: int) -> None:
    """A `transformers` folder of random weights in several files, written without holding the model."""
    from models.common.construction import saved_names
    from models.common.initial_values import construct

    folder.mkdir(parents=True)
    model, values = construct(lambda: make(config), seed=1)
    tensors = {name: (dtype, tuple(tensor.shape)) for name, tensor in saved_names(model).items()}
    names = list(tensors)
    size = -(-len(names) // files)
    chosen = {f"model-{n + 1:05d}-of-{files:05d}.safetensors": names[n * size : (n + 1) * size] for n in range(files)}
    for file, own in chosen.items():
        pieces = (
            values[name].flat(start, stop).to(dtype) for name in own for start, stop in blocks(0, values[name].numel)
        )
        write_safetensors(folder / file, {name: tensors[name] for name in own}, pieces)
    index = {"metadata": {}, "weight_map": {name: file for file, own in chosen.items() for name in own}}
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")
    config.architectures = [make.__name__]
    config.save_pretrained(folder)


def run(ranks: int, scratch: Path, case: Mapping[str, Any], timeout: float = 1500) -> list[dict[str, Any]]:
    """Run one phase of a job on ``ranks`` processes and export its model; what each rank measured.

    ``case``: `model` and, of the same kind but tiny, `warm_up` (fields), `settings`, `phase`, `precision`,
    `tensor_parallel`, `texts` (tokens of a text).
    """
    # Freed blocks go back at once, so that resident memory is what is held, as with a GPU's allocator.
    returning = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
    return launch_ranks(ranks, measure_rank, str(scratch), dict(case), timeout=timeout, environment=returning)


def make_job(case: Mapping[str, Any], scratch: Path) -> TrainingJob:
    """The job that a case describes."""
    return TrainingJob(
        key="train",
        settings=OptimizationConfig.model_validate(case["settings"]),
        phases=[PhaseConfig.model_validate(case["phase"])],
        model=registry.model_config(case["model"]),
        initial=None,
        source=None,  # type: ignore[arg-type]
        tokenizer="",
        special=SpecialIds(),
        scratch=str(scratch),
        precision=case["precision"],
        threads=1,
        tensor_parallel=int(case.get("tensor_parallel", 1)),
    )


class Peak:
    """Memory that this process has allocated, in bytes above what it was when the object was made, and its peak.

    Pages of files that are mapped do not count: they are the system's cache, and no GPU would hold them.
    """

    def __init__(self) -> None:
        _trim()
        self._before = _allocated()
        self._highest = 0
        self._lock = threading.Lock()  # a sample of before a start must not outlive it
        threading.Thread(target=self._watch, daemon=True).start()

    def start(self) -> None:
        """Forget earlier peaks."""
        _trim()
        with self._lock:
            self._highest = _allocated()

    def read(self) -> int:
        """The highest since :meth:`start`."""
        return max(self._highest, _allocated()) - self._before

    def now(self) -> int:
        """What is held at the moment."""
        _trim()
        return _allocated() - self._before

    def _watch(self) -> None:
        while True:
            with self._lock:
                self._highest = max(self._highest, _allocated())
            time.sleep(0.002)


def _allocated() -> int:
    status = Path("/proc/self/status").read_text()
    return sum(
        int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(("RssAnon:", "RssShmem:"))
    )


def _trim() -> None:
    ctypes.CDLL("libc.so.6").malloc_trim(0)


def batch_of(model: Any, images: int, tokens: int, vocabulary: int) -> dict[str, Any]:
    """Images with a text of ``tokens`` tokens each."""
    generator = torch.Generator().manual_seed(0)
    size = model.vision.image_size
    ids = torch.randint(3, vocabulary, (images, tokens), generator=generator)
    return {
        "pixels": torch.randn(images, 3, size, size, generator=generator),
        "image_index": torch.arange(images),
        "image_id": torch.arange(images),
        "prompt_ids": torch.empty(images, 0, dtype=torch.int64),
        "prompt_mask": torch.empty(images, 0, dtype=torch.int64),
        "target_ids": ids,
        "target_mask": torch.ones_like(ids),
    }


def measure_rank(scratch: str, case: Mapping[str, Any]) -> dict[str, Any]:
    """What one rank of :func:`run` measures, in bytes."""
    from stages.train.trainer.construction import construct, release, save_phase_weights
    from stages.train.trainer.deepspeed_engine import build_engine
    from stages.train.trainer.export import export_model
    from stages.train.trainer.ranks import RankInfo

    job = make_job(case, Path(scratch))
    info = RankInfo(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), job.tensor_parallel, torch.device("cpu"))
    # What the first engine of a process costs whatever its size: imports, the communicator's buffers.
    small = replace(job, model=registry.model_config(case["warm_up"]))
    release(build_engine(small, info, construct(small, 0), 1))
    phase = construct(job, 0)
    measured: dict[str, Any] = {}
    peak = Peak()
    peak.start()
    engine = build_engine(job, info, phase, 1)
    measured["start"] = peak.read()
    measured["held_at_start"] = peak.now()
    peak.start()
    dtype = torch.bfloat16 if job.precision == "bf16" else torch.float32
    batch = batch_of(job.model, job.settings.micro_batch, int(case["texts"]), job.model.vocabulary)
    batch["pixels"] = batch["pixels"].to(dtype)
    losses = []
    moments = {"forward": 0, "backward": 0, "update": 0}

    def note(moment: str) -> None:
        moments[moment] = max(moments[moment], peak.read())
        peak.start()

    # DeepSpeed's ZeRO-3 gathers weights ahead of their use from the third step on, when it knows the order.
    for _ in range(int(case.get("steps", 3))):
        loss = engine(batch)["loss"]
        note("forward")
        engine.backward(loss)
        note("backward")
        engine.step()
        note("update")
        losses.append(float(loss))
        del loss
    measured |= moments
    measured["training"] = max(moments.values())
    measured["held_after_training"] = peak.now()
    peak.start()
    folder = job.folder / "phase-0"
    save_phase_weights(engine, phase.model, info, folder)
    torch.distributed.barrier()
    measured["save"] = peak.read()
    release(engine)
    del engine, phase, batch
    measured["held_after_engine"] = peak.now()
    peak.start()
    export_model(job, info)
    measured["export"] = peak.read()
    measured["losses"] = losses
    return measured
