"""How well a GPU is used: the FLOPs that a model needs, the peak FLOP/s of a device, the peak of its memory."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
import torch.distributed as dist

from models import registry
from models.common.cost import MicroBatch, NoCost
from stages.train.job import TrainingJob

#: What a device's name matches -> peak FLOP/s of dense bf16 matrix products (V100: fp16), by NVIDIA's data sheets,
#: without sparsity. Of an H100 the name tells the module; of one that is in no line nothing is known.
_PEAKS = (
    (r"A100\b", 312e12),
    (r"H100 PCIe\b", 756e12),
    (r"H100 (80GB HBM3|SXM)", 989e12),
    (r"H200( |$)(?!NVL)", 989e12),
    (r"A10$", 125e12),
    (r"L4$", 121e12),
    (r"L40S$", 362e12),
    (r"V100\b", 125e12),
    (r"RTX 4090$", 165e12),
)


def peak_flops(device_name: str, precision: str) -> float | None:
    """Peak FLOP/s of a GPU by its CUDA name, in `bf16` or, for `fp32`, in TF32 (half of it); None if not known."""
    for pattern, peak in _PEAKS:
        if re.search(rf"(^|[ -]){pattern}", device_name):
            if precision == "bf16":
                return peak
            return None if "V100" in device_name else peak / 2  # Volta has no TF32
    return None


def device_peak_flops(device: torch.device, precision: str) -> float | None:
    """The same of a device; None for a CPU."""
    return peak_flops(torch.cuda.get_device_name(device), precision) if device.type == "cuda" else None


def peak_memory(device: torch.device) -> float | None:
    """Most bytes that tensors took on the GPU since the last call, the maximum over ranks; None on a CPU.

    Every rank calls this. Waits for the device.
    """
    if device.type != "cuda":
        return None
    peak = torch.tensor([torch.cuda.max_memory_allocated(device)], dtype=torch.float64, device=device)
    torch.cuda.reset_peak_memory_stats(device)
    dist.all_reduce(peak, dist.ReduceOp.MAX)
    return float(peak)


class MicroBatchFlops:
    """Model FLOPs of one rank's micro-batches: forward and backward, nothing that is computed twice (PaLM, appendix B)."""

    def __init__(self, job: TrainingJob, phase: int, data_ranks: int) -> None:
        self._model = job.model
        self._phase = job.phases[phase]
        self._data_ranks = data_ranks
        used = registry.objective_parts(job.model, self._phase.objective)
        self._trainable = tuple(self._phase.trainable or used)
        # Padded lengths repeat: a text has few lengths.
        self._of_shape = lru_cache(maxsize=4096)(self._count)

    def __call__(self, batch: Mapping[str, Any]) -> float:
        """Of a batch by its padded shape; 0 for an architecture that does not tell its costs."""
        texts, target = batch["target_ids"].shape
        return self._of_shape(len(batch["pixels"]), texts, batch["prompt_ids"].shape[1], target)

    def _count(self, images: int, texts: int, prompt: int, target: int) -> float:
        shape = MicroBatch(images, texts, prompt, target, self._data_ranks)
        try:
            parts = registry.flops_per_sample(
                self._model, self._phase.objective, self._trainable, shape, self._phase.settings
            )
        except NoCost:
            return 0.0
        return images * sum(flops.model for flops in parts.values())
