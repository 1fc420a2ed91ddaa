"""Peak FLOP/s are those of the very device, and unknown ones have none."""

from __future__ import annotations

import pytest
import torch

from stages.train.trainer.utilisation import MicroBatchFlops, device_peak_flops, peak_flops
from tests.stages.train.trainer.gradients import job_of


@pytest.mark.parametrize(
    ("name", "bf16"),
    [
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A100 80GB PCIe", 312e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", None),
        ("NVIDIA H200", 989e12),
        ("NVIDIA H200 NVL", None),
        ("NVIDIA GH200 480GB", None),
        ("NVIDIA A10", 125e12),
        ("NVIDIA A10G", None),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L40", None),
        ("Tesla V100-SXM2-16GB", 125e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
    ],
)
def test_a_devices_peak_is_found_by_its_whole_name(name: str, bf16: float | None) -> None:
    assert peak_flops(name, "bf16") == bf16
    assert peak_flops(name, "fp32") == (bf16 / 2 if bf16 and "V100" not in name else None)


def test_a_cpu_has_no_peak() -> None:
    assert device_peak_flops(torch.device("cpu"), "bf16") is None


def test_model_flops_grow_with_images_and_do_not_with_checkpointing() -> None:
    case = {"model": "florence2", "objective": "sequence_to_sequence", "micro_batch": 2}

    def flops(images: int, **more: object) -> float:
        ids, none = torch.zeros(images, 6), torch.zeros(images, 0)
        batch = {"pixels": torch.zeros(images, 3, 16, 16), "target_ids": ids, "prompt_ids": none}
        return MicroBatchFlops(job_of({**case, **more}), 0, 1)(batch)

    assert flops(4) == pytest.approx(2 * flops(2)) != 0
    assert flops(2, checkpointing={"vision": 1, "language": 1}) == flops(2)
