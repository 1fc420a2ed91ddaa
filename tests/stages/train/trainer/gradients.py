"""Gradients of one optimizer step in any layout (micro-batch, ranks), by the real loader and objectives."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from models import registry
from models.common.construction import fill
from stages.tokenizer.special import SpecialIds
from stages.train.config import OptimizationConfig, PhaseConfig
from stages.train.data.crop import Crop
from stages.train.data.dataset import Flips, TextTotals, TokenizedText, TrainingSample
from stages.train.data.loader import Loader
from stages.train.job import TrainingJob
from stages.train.trainer.construction import construct, release

GLOBAL_BATCH = 8
VISION = {"image_size": 16, "patch_size": 8, "width": 16, "layers": 2, "heads": 2, "mlp_width": 16}
MODELS: dict[str, dict[str, Any]] = {
    "blip2": {
        "architecture": "blip2",
        "name": "test",
        "vocabulary": 64,
        "vision": VISION,
        "qformer": {"queries": 2, "width": 16, "layers": 2, "heads": 2, "mlp_width": 16, "dropout": 0.0},
        "language": {"width": 16, "layers": 2, "heads": 2, "mlp_width": 16, "positions": 32},
        "adapters": {"gate": 0.5},
        "heads": {"projection": 8},
        "initialiser_range": 0.2,
    },
    "florence2": {
        "architecture": "florence2",
        "name": "test",
        "vocabulary": 64,
        "vision": VISION,
        "reconstruction": {"width": 16, "layers": 2, "heads": 2, "mlp_width": 16},
        "language": {
            "width": 16,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "heads": 2,
            "mlp_width": 16,
            "positions": 32,
            "dropout": 0.0,
        },
        "initialiser_range": 0.2,
    },
}


class Texts:
    """Twenty images with one to three texts each, prompts and targets of many lengths."""

    def __len__(self) -> int:
        return 20

    def _texts(self, number: int) -> tuple[TokenizedText, ...]:
        draw = np.random.default_rng(number)
        lengths = [(draw.integers(0, 4), draw.integers(0, 9)) for _ in range(1 + number % 3)]
        return tuple(TokenizedText(draw.integers(3, 60, p), np.append(draw.integers(3, 60, t), 2)) for p, t in lengths)

    def sample(self, number: int, epoch: int) -> TrainingSample:
        file = io.BytesIO()
        noise = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(file, "PNG")
        texts = self._texts(number)

        def shown(crop: Crop) -> tuple[TokenizedText, ...]:
            return texts

        return TrainingSample(str(number), number, file.getvalue(), shown)

    def longest(self, numbers: NDArray[np.int64], epochs: NDArray[np.int64]) -> tuple[int, int]:
        texts = [text for number in numbers.tolist() for text in self._texts(number)]
        return max(len(text.prompt) for text in texts), max(len(text.target) for text in texts)

    def totals(self, numbers: NDArray[np.int64], epochs: NDArray[np.int64], flips: Flips) -> TextTotals:
        texts = [text for number in numbers.tolist() for text in self._texts(number)]
        return TextTotals(len(texts), sum(len(text.target) for text in texts))

    image_only: tuple[str, ...] = ()

    def with_texts(self) -> None:
        return None


def _with_layers(fields: dict[str, Any], layers: int) -> dict[str, Any]:
    """The fields of a model with so many layers in each of its transformers."""
    return {
        name: _with_layers(value, layers) if isinstance(value, dict) else layers if name.endswith("layers") else value
        for name, value in fields.items()
    }


def job_of(case: dict[str, Any]) -> TrainingJob:
    """What trains a case's objective for a step."""
    model = MODELS[case["model"]]
    settings = {
        "global_batch": GLOBAL_BATCH,
        "micro_batch": case["micro_batch"],
        "zero": {"stage": case.get("stage", 0), "frozen_shards": case.get("frozen_shards")},
        "activation_checkpointing": case.get("checkpointing", {}),
        "compile": case.get("compile", False),
        "loss_chunk": 3,
        "grad_clip": 0,
        "augmentation": {"crop_scale": [0.5, 1.0], "horizontal_flip": 0.5},
    }
    phase = {name: case[name] for name in ("objective", "settings", "trainable") if name in case}
    data: Any = None
    return TrainingJob(
        key="train",
        settings=OptimizationConfig.model_validate(settings),
        phases=[PhaseConfig.model_validate({**phase, "steps": 1})],
        model=registry.model_config(_with_layers(model, case["layers"]) if "layers" in case else model),
        initial=None,
        source=data,
        tokenizer="",
        special=SpecialIds(),
        scratch="",
        precision="fp32",
        threads=1,
        tensor_parallel=case.get("tensor_parallel", 1),
    )


def objective_of(case: dict[str, Any]) -> Any:
    """The objective of a case around its model, equal on all ranks and to that of an engine."""
    phase = construct(job_of(case), 0)
    fill(phase.model, phase.values)
    return phase.objective.train()


def accumulate(loader: Loader, step: int, losses_of: Callable[[Any, bool], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Mean losses of a rank's micro-batches; ``losses_of(batch, last)`` takes the gradients."""
    means: dict[str, Tensor] = {}
    for micro_step in range(loader.accumulation):
        torch.manual_seed(micro_step)
        batch = dict(loader.micro_batch(step, micro_step))
        for name, loss in losses_of(batch, micro_step + 1 == loader.accumulation).items():
            means[name] = means.get(name, torch.zeros(())) + loss.detach() / loader.accumulation
    return means


def loader_of(case: dict[str, Any], rank: int, ranks: int) -> Loader:
    data: Any = Texts()
    accumulation = GLOBAL_BATCH // (case["micro_batch"] * ranks)
    return Loader(data, job_of(case).settings, 16, rank, ranks, accumulation)


def one_after_the_other(case: dict[str, Any], ranks: int) -> dict[str, Tensor]:
    """Gradients as DeepSpeed averages them, with the mean losses; all ranks in this process, so none sees another."""
    objective = objective_of(case)
    found: dict[str, Tensor] = {}
    for rank in range(ranks):
        loader = loader_of(case, rank, ranks)

        def losses_of(batch: Any, last: bool, parts: int = ranks * loader.accumulation) -> dict[str, Tensor]:
            losses: dict[str, Tensor] = objective(batch)
            (losses["loss"] / parts).backward()
            return losses

        for name, loss in accumulate(loader, case.get("step", 0), losses_of).items():
            found[name] = found.get(name, torch.zeros(())) + loss / ranks
    return {**found, **{n: w.grad for n, w in objective.model.named_parameters() if w.grad is not None}}


def with_deepspeed(case: dict[str, Any], rank: int, ranks: int) -> dict[str, Tensor]:
    """The same by a DeepSpeed engine on each rank."""
    from deepspeed.utils import safe_get_full_grad

    from stages.train.trainer.deepspeed_engine import build_engine
    from stages.train.trainer.ranks import RankInfo

    job = job_of(case)
    info = RankInfo(rank, ranks, job.tensor_parallel, torch.device("cpu"))
    loader = loader_of(case, info.data_rank, info.data_ranks)
    phase = construct(job, 0)
    engine = build_engine(job, info, phase, loader.accumulation)
    engine.train()

    def losses_of(batch: Any, last: bool) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = engine(batch)
        engine.backward(losses["loss"])
        if not last:
            engine.step()
        return losses

    found = accumulate(loader, case.get("step", 0), losses_of)
    for loss in found.values():
        torch.distributed.all_reduce(loss.div_(ranks))
    for name, weight in phase.model.named_parameters():
        if weight.requires_grad:
            gradient = weight.grad if case.get("stage", 0) == 0 else safe_get_full_grad(weight)
            assert gradient is not None, name
            found[name] = gradient.detach().clone()
    engine.step()
    release(engine)
    return found


def save_gradients(cases: dict[str, dict[str, Any]], file: str) -> None:
    """What every case gives by name, taken by all ranks and saved by rank 0; for `launch_ranks`."""
    rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    found = {name: with_deepspeed(case, rank, ranks) for name, case in cases.items()}
    if not rank:
        torch.save(found, file)
