"""Figures of GPUs, and what is set aside of a memory, each with its source."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """One GPU module."""

    name: str
    flops: dict[str, float]
    """Training precision -> peak FLOP/s of dense matrix products on tensor cores; fp32 means TF32."""
    link: float
    """Bytes per second, per direction, to the other GPUs of the node over NVLink."""
    watts: float
    """Greatest power (TDP)."""


#: NVIDIA's data sheets of the A100, H100 and H200, SXM modules, without sparsity. NVLink is given there as the sum of
#: both directions: 600 and 900 GB/s.
GPUS = {
    "a100": Gpu("A100-80GB SXM", {"bf16": 312e12, "fp32": 156e12}, 300e9, 400),
    "h100": Gpu("H100-80GB SXM", {"bf16": 989e12, "fp32": 494e12}, 450e9, 700),
    "h200": Gpu("H200-141GB SXM", {"bf16": 989e12, "fp32": 494e12}, 450e9, 700),
}

#: Bytes of a GPU that no tensor gets: the CUDA context with its kernels (about 0.5 GB on an A100), the workspaces of
#: cuBLAS and the buffers of NCCL's communicators (the rest).
CONTEXT = 1e9

#: Share of what is allocated that the allocator's blocks waste by their sizes and by what lies between them.
FRAGMENTATION = 0.05

#: Bytes of a rank's process in the host's memory before it has any tensor: Python, torch, transformers and DeepSpeed;
#: with CUDA, its libraries and pinned staging buffers on top.
PROCESS, PROCESS_WITH_CUDA = 0.7e9, 3e9

#: Bytes of a worker process of the loader, and of the block by which weights are read or drawn.
LOADER_WORKER, BLOCK = 0.3e9, 0.1e9

#: Share of a link's nominal rate that collectives reach.
LINK_EFFICIENCY = 0.8

#: Share of a memory that is set aside where activations are not known (an architecture without `record_cost`).
UNKNOWN_ACTIVATIONS = 0.2


def usable(memory: float, *, on_gpu: bool, activations_known: bool = True) -> float:
    """Bytes of a memory that tensors may fill."""
    room = memory - (CONTEXT if on_gpu else PROCESS)
    return room / (1 + FRAGMENTATION) * (1 if activations_known else 1 - UNKNOWN_ACTIVATIONS)
