"""One rank of a real training run whose memory is measured: what the allocator holds, as `torch.cuda` would count it.

Started as a program with a JSON file of settings; writes the peaks, in bytes, to the file that it names. Every block of
the CPU allocator is counted from the moment the process has imported its libraries (the events of torch's profiler,
which see temporaries inside kernels too), so the peak is the sum of live blocks, as `torch.cuda.max_memory_allocated`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def peak_of(events: Any) -> int:
    """The greatest sum of live blocks, and the live blocks at the end, of a profile's allocations."""
    live: dict[int, int] = {}
    total = peak = 0
    for event in events:
        pointer, size = event
        if size > 0:
            live[pointer] = size
            total += size
            peak = max(peak, total)
        else:
            total -= live.pop(pointer, 0)
    return peak, total


def main(settings: dict[str, Any], rank: int, ranks: int) -> dict[str, int]:
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(ranks), LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1",
                      MASTER_PORT=str(settings["port"]), DS_ACCELERATOR="cpu")
    import torch

    torch.set_num_threads(1)
    from stages.train.trainer.ranks import _import_deepspeed
    _import_deepspeed()
    import deepspeed
    import logging
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    deepspeed.init_distributed("gloo")
    import time
    from models import registry
    from stages.tokenizer.special import SpecialIds
    from stages.train.config import PhaseConfig, OptimizationConfig
    from stages.train.job import TrainingJob
    from stages.train.trainer.deepspeed_engine import build_engine
    from stages.train.trainer.trainer import build_model
    from stages.train.trainer.ranks import RankInfo

    info = RankInfo(rank, ranks, 1, torch.device("cpu"))
    model_config = registry.model_config(settings["model"])
    phase = PhaseConfig(**settings["phase"])
    job = TrainingJob(
        key="train", settings=OptimizationConfig(**settings["train"]), phases=(phase,), model=model_config, initial=None,
        source=None, tokenizer="", special=SpecialIds(pad=0, bos=1, eos=2), scratch="/tmp/plan/none",
        precision=settings["precision"], threads=1, tensor_parallel=1,
    )
    steps, accumulation = settings["steps"], settings["accumulation"]
    generator = torch.Generator().manual_seed(rank)
    images, length = settings["images"], settings["length"]
    marks = {}
    from torch.profiler import ProfilerActivity, profile, record_function

    def go():
        with record_function("build_model"):
            model, objective = build_model(job, 0)
        with record_function("build_engine"):
            engine = build_engine(job, info, objective, accumulation)
        engine.train()
        t = time.time()
        for _ in range(steps):
            for _ in range(accumulation):
                size = model_config.vision.image_size
                dtype = torch.bfloat16 if settings["precision"] == "bf16" else torch.float32
                ids = torch.randint(3, model_config.vocabulary, (images, length), generator=generator)
                batch = {
                    "pixels": torch.randn(images, 3, size, size, generator=generator).to(dtype),
                    "image_index": torch.arange(images), "image_id": torch.arange(images) + 1000 * rank,
                    "prompt_ids": torch.zeros(images, 0, dtype=torch.long), "prompt_mask": torch.zeros(images, 0, dtype=torch.long),
                    "target_ids": ids, "target_mask": torch.ones_like(ids),
                }
                with record_function("forward"):
                    losses = engine(batch)
                with record_function("backward"):
                    engine.backward(losses["loss"])
                with record_function("step"):
                    engine.step()
                del batch, losses
        marks["seconds"] = time.time() - t
        return model, engine

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as prof:
        kept = go()
    events, windows = [], []
    stack = list(prof.profiler.kineto_results.experimental_event_tree())
    while stack:
        event = stack.pop()
        stack.extend(event.children)
        if event.name in ("forward", "backward", "step", "build_model", "build_engine"):
            windows.append((event.start_time_ns, event.name))
        if "Allocation" in type(event.extra_fields).__name__:
            events.append((event.start_time_ns, event.extra_fields.ptr, event.extra_fields.alloc_size, event.extra_fields.total_allocated))
    events.sort()
    windows.sort()
    peaks, live, total, w = {}, {}, 0, -1
    for t, pointer, size, _ in events:
        while w + 1 < len(windows) and windows[w + 1][0] <= t:
            w += 1
        if size > 0:
            live[pointer] = size
            total += size
        else:
            total -= live.pop(pointer, 0)
        name = windows[w][1]
        peaks[name] = max(peaks.get(name, 0), total)
    marks["peaks"] = peaks
    peak, end = peak_of((p, s) for _, p, s, _ in events)
    marks["reported_peak"] = max(e[3] for e in events)
    if settings.get("timeline"):
        with open(settings["timeline"] + f".{rank}", "w") as f:
            total = 0
            live = {}
            for t, p, s, a in events:
                if s > 0:
                    live[p] = s; total += s
                else:
                    total -= live.pop(p, 0)
                if abs(s) >= 200_000:
                    f.write(f"{t - events[0][0]} {s} {total}\n")
    return {"peak": peak, "end": end, "events": len(events), **marks}


if __name__ == "__main__":
    settings = json.loads(Path(sys.argv[1]).read_text())
    result = main(settings, int(sys.argv[2]), settings["ranks"])
    Path(f"{sys.argv[1]}.{sys.argv[2]}").write_text(json.dumps(result))
    os._exit(0)
