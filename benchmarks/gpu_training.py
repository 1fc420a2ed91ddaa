"""Training speed on one GPU (or, with `--toy`, a CPU): samples/s, tokens/s, MFU, peak memory, time by part.

No Ray: one process, the engine of `stages/train/trainer`, batches made in memory and taken through the same hand-over.
`blip2` is stage 2 with a frozen OPT of 1.3B and a frozen ViT of about 0.3B; `florence2` its sequence-to-sequence phase
at about 1B. All weights are random. The timed pass is undisturbed; the time by part is taken in a second one, with
events before and after the forward pass of each part, the backward pass and the update. Peak memory stands beside the
figure of `pairmill plan`. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]
for _name, _value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}.items():
    os.environ.setdefault(_name, _value)

import torch  # noqa: E402
from common import machine  # noqa: E402

_TOY_VISION = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "heads": 2, "mlp_width": 64}
_VIT_L = {"image_size": 224, "patch_size": 14, "width": 1024, "layers": 24, "heads": 16, "mlp_width": 4096}
_BLIP2 = {
    "vision": _VIT_L,
    "qformer": {"queries": 32, "width": 768, "layers": 12, "heads": 12, "mlp_width": 3072},
    "language": {"width": 2048, "layers": 24, "heads": 32, "mlp_width": 8192, "positions": 2048},
}
_FLORENCE2 = {
    "vision": _VIT_L,
    "reconstruction": {"width": 512, "layers": 8, "heads": 16, "mlp_width": 2048},
    "language": {
        "width": 1280,
        "encoder_layers": 14,
        "decoder_layers": 14,
        "heads": 20,
        "mlp_width": 5120,
        "positions": 1024,
    },
}
_TOY = {
    "blip2": {
        "vision": _TOY_VISION,
        "qformer": {"queries": 4, "width": 32, "layers": 2, "heads": 2, "mlp_width": 64},
        "language": {"width": 32, "layers": 2, "heads": 2, "mlp_width": 64, "positions": 64},
    },
    "florence2": {
        "vision": _TOY_VISION,
        "reconstruction": {"width": 32, "layers": 1, "heads": 2, "mlp_width": 64},
        "language": {
            "width": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "heads": 2,
            "mlp_width": 64,
            "positions": 64,
        },
    },
}
_PHASES: dict[str, dict[str, Any]] = {
    "blip2": {"objective": "language_modeling", "trainable": ["qformer", "adapters"]},
    "florence2": {"objective": "sequence_to_sequence"},
}
_LAYERED = {"blip2": ("vision", "qformer", "language"), "florence2": ("vision", "language")}


def make_job(arguments: argparse.Namespace, scratch: str) -> Any:
    """The job of a benchmarked model."""
    from models import registry
    from stages.tokenizer.special import SpecialIds
    from stages.train.config import TrainConfig
    from stages.train.job import TrainingJob, check_compile

    name = arguments.model
    shape = _TOY[name] if arguments.toy else {"blip2": _BLIP2, "florence2": _FLORENCE2}[name]
    vocabulary = 256 if arguments.toy else 50272
    config = {"architecture": name, "name": f"{name}_benchmark", "vocabulary": vocabulary, **shape}
    parts = _LAYERED[name] if arguments.checkpointing else ()
    settings = TrainConfig.model_validate(
        {
            "phases": [{**_PHASES[name], "steps": arguments.steps}],
            "global_batch": arguments.micro_batch,
            "micro_batch": arguments.micro_batch,
            "max_text_tokens": arguments.tokens,
            "zero": {"stage": arguments.zero},
            "activation_checkpointing": dict.fromkeys(parts, 1),
            "compile": arguments.compile,
            "random_frozen": True,
        }
    )
    check_compile("train", settings, 1)
    return TrainingJob(
        key="train",
        settings=settings,
        phases=settings.phases,
        model=registry.model_config(config),
        initial=None,
        source=None,  # type: ignore[arg-type]
        tokenizer="",
        special=SpecialIds(),
        scratch=scratch,
        precision=arguments.precision,
        threads=torch.get_num_threads(),
        tensor_parallel=1,
    )


def batches(job: Any, tokens: int) -> Iterator[Any]:
    """Endless micro-batches of noise, each image with a text of so many tokens."""
    import numpy as np

    from stages.train.data.dataset import TokenizedText
    from stages.train.data.loader import collate
    from stages.train.data.pinned import pinned_array

    images, size = job.settings.micro_batch, job.model.vision.image_size
    draw = np.random.default_rng(0)
    noise = pinned_array((images, 3, size, size))
    noise[:] = draw.standard_normal(noise.shape, dtype=np.float32)
    while True:
        texts = draw.integers(3, job.model.vocabulary, (images, tokens))
        yield collate(noise, range(images), [[TokenizedText(texts[0, :0], text)] for text in texts])


class Clock:
    """Seconds between marks, on the device: CUDA events, or the host's clock."""

    def __init__(self, device: torch.device) -> None:
        self._gpu = device.type == "cuda"
        self._spans: dict[str, list[list[Any]]] = {}

    def _now(self) -> Any:
        if not self._gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def start(self, name: str) -> None:
        """Begin a span."""
        self._spans.setdefault(name, []).append([self._now()])

    def stop(self, name: str) -> None:
        """End it."""
        self._spans[name][-1].append(self._now())

    def watch(self, name: str, module: torch.nn.Module) -> None:
        """Time a module's forward passes; of a checkpointed layer the second one counts, too, as in `backward`."""
        module.register_forward_pre_hook(lambda *_: self.start(name))
        module.register_forward_hook(lambda *_: self.stop(name))

    def seconds(self) -> dict[str, float]:
        """Of all spans, added up by name."""
        if self._gpu:
            torch.cuda.synchronize()
            return {n: sum(a.elapsed_time(b) / 1e3 for a, b in spans) for n, spans in self._spans.items()}
        return {n: sum(b - a for a, b in spans) for n, spans in self._spans.items()}


def watched(job: Any, model: Any) -> dict[str, list[torch.nn.Module]]:
    """Name -> modules whose forward passes are timed: the parts (or their layers) and the loss."""
    language = model.language
    if job.model.architecture == "blip2":
        body = {"vision": [model.vision], "qformer": [model.qformer.body], "language": [language.base_model]}
    else:
        decoder = list(language.get_decoder().layers)
        body = {"vision": list(model.vision.layers), "encoder": [language.get_encoder()], "decoder": decoder}
    return {**body, "loss": [language.get_output_embeddings()]}


def planned_bytes(job: Any) -> float:
    """Peak of a rank's tensors by `pairmill plan`."""
    from pipelines.cluster import ClusterConfig
    from pipelines.plan.phase import PhasePlan

    gpus = 1 if torch.cuda.is_available() else 0
    cluster = ClusterConfig.model_validate(
        {"workers": 1, "gpus_per_worker": gpus, "precision": job.precision, "cpus_per_worker": 1}
    )
    return PhasePlan(job.model, job.settings, cluster, 0).peak.total


def measure(arguments: argparse.Namespace, scratch: str) -> dict[str, Any]:
    """Both passes; what they gave."""
    from stages.train.trainer.construction import construct
    from stages.train.trainer.deepspeed_engine import build_engine
    from stages.train.trainer.device_batches import DeviceBatches
    from stages.train.trainer.ranks import RankInfo, _import_deepspeed, set_gpu_precision
    from stages.train.trainer.utilisation import MicroBatchFlops, device_peak_flops

    gpu = torch.cuda.is_available()
    device = torch.device("cuda", 0) if gpu else torch.device("cpu")
    if gpu:
        set_gpu_precision()
    else:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    _import_deepspeed()
    torch.distributed.init_process_group(
        "nccl" if gpu else "gloo", init_method=f"file://{scratch}/store", rank=0, world_size=1
    )
    job = make_job(arguments, scratch)
    phase = construct(job, 0)
    engine = build_engine(job, RankInfo(0, 1, 1, device), phase, 1)
    engine.train()
    dtype = torch.bfloat16 if job.precision == "bf16" else torch.float32
    supply = DeviceBatches(batches(job, arguments.tokens), list, device, dtype)
    clock = Clock(device)

    def step(timed: Clock | None = None) -> Any:
        batch = supply.take().batch
        loss = engine(batch)["loss"]
        for name, work in (("backward", lambda: engine.backward(loss)), ("optimizer", engine.step)):
            if timed is not None:
                timed.start(name)
            work()
            if timed is not None:
                timed.stop(name)
            if name == "backward":
                supply.prefetch()
        return batch

    for _ in range(arguments.warmup):
        batch = step()
    if gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    for _ in range(arguments.steps):
        batch = step()
    if gpu:
        torch.cuda.synchronize()
    seconds = (time.perf_counter() - start) / arguments.steps
    flops = MicroBatchFlops(job, 0, 1)(batch)
    peak = device_peak_flops(device, job.precision)
    result = {
        "samples_per_s": arguments.micro_batch / seconds,
        "tokens_per_s": arguments.micro_batch * arguments.tokens / seconds,
        "seconds_per_step": seconds,
        "model_flops_per_s": flops / seconds,
        "mfu": flops / seconds / peak if peak else None,
        "peak_bytes": torch.cuda.max_memory_allocated() if gpu else None,
        "planned_bytes": planned_bytes(job),
    }
    for name, modules in watched(job, phase.model).items():
        for module in modules:
            clock.watch(name, module)
    for _ in range(arguments.steps):
        step(clock)
    split = {name: spent / arguments.steps for name, spent in clock.seconds().items()}
    torch.distributed.destroy_process_group()
    return {
        "name": f"gpu_training {arguments.model}",
        **result,
        "seconds_by_part": split,
        "device": torch.cuda.get_device_name() if gpu else "cpu",
        "parameters": sum(getattr(w, "ds_numel", w.numel()) for w in phase.model.parameters()),
        "inputs": {k: v for k, v in vars(arguments).items() if k != "json"},
        "machine": machine(),
    }


def main() -> None:
    """Measure one model and print a table and the JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=["blip2", "florence2"])
    parser.add_argument("--toy", action="store_true", help="a tiny model, for a CPU")
    parser.add_argument("--micro-batch", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64, help="of a text")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=5, help="steps that are not timed")
    parser.add_argument("--zero", type=int, default=1, choices=[0, 1, 2, 3])
    parser.add_argument("--precision", default="bf16", choices=["bf16", "fp32"])
    parser.add_argument("--checkpointing", action="store_true", help="of every layer")
    parser.add_argument("--compile", action="store_true", help="torch.compile of every layer")
    parser.add_argument("--json", type=Path, help="also write the JSON object to this file")
    arguments = parser.parse_args()
    if arguments.toy:
        arguments.micro_batch, arguments.tokens = min(arguments.micro_batch, 4), min(arguments.tokens, 8)
    with tempfile.TemporaryDirectory(prefix="gpu-training-") as scratch:
        result = measure(arguments, scratch)
    print(f"{result['name']} on {result['device']}, {result['parameters'] / 1e6:.1f}M parameters")
    for name, value in result.items():
        if isinstance(value, float | int) and name != "parameters":
            print(f"  {name:24}{value:16.6g}")
    for name, value in result["seconds_by_part"].items():
        print(f"  seconds of {name:13}{value:16.6f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result), encoding="utf-8")
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
