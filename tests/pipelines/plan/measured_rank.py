"""One rank of a real training whose memory is measured: a program, started with a JSON file of settings and a rank.

It builds a phase's model and DeepSpeed engine as the trainer does, over gloo, takes some steps, and writes the greatest
sum of live blocks of torch's CPU allocator to a file. That is what `torch.cuda.max_memory_allocated` would be: torch's
profiler reports every block, those inside kernels too, and pages that are allocated but not touched count.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

STEPS = 2


def main(settings: dict[str, Any], rank: int) -> dict[str, float]:
    """Train; returns the peak of each kind of moment in bytes."""
    import torch
    from torch.profiler import ProfilerActivity, profile, record_function

    torch.set_num_threads(1)
    from stages.train.trainer.ranks import _import_deepspeed

    _import_deepspeed()
    import deepspeed

    from models import registry
    from stages.tokenizer.special import SpecialIds
    from stages.train.config import TrainConfig
    from stages.train.job import TrainingJob
    from stages.train.trainer.construction import construct
    from stages.train.trainer.deepspeed_engine import build_engine
    from stages.train.trainer.ranks import RankInfo

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    deepspeed.init_distributed("gloo")
    model = registry.model_config(settings["model"])
    train = TrainConfig.model_validate(settings["train"])
    ranks = RankInfo(rank, settings["ranks"], 1, torch.device("cpu"))
    job: Any = TrainingJob(
        key="train",
        settings=train,
        phases=tuple(train.phases),
        model=model,
        initial=None,
        source=None,  # type: ignore[arg-type] - batches are drawn below
        tokenizer="",
        special=SpecialIds(pad=0, bos=1, eos=2),
        scratch=settings["scratch"],
        precision=settings["precision"],
        threads=1,
        tensor_parallel=1,
    )
    accumulation = train.global_batch // (train.micro_batch * settings["ranks"])
    generator = torch.Generator().manual_seed(rank)

    def batch() -> dict[str, Any]:
        images, size = train.micro_batch, model.vision.image_size
        ids = torch.randint(3, model.vocabulary, (images, train.max_text_tokens), generator=generator)
        none = torch.zeros(images, 0, dtype=torch.long)
        pixels = torch.randn(images, 3, size, size, generator=generator)
        return {
            "pixels": pixels.to(torch.bfloat16 if settings["precision"] == "bf16" else torch.float32),
            "image_index": torch.arange(images),
            "image_id": torch.arange(images) + images * rank,
            "prompt_ids": none,
            "prompt_mask": none,
            "target_ids": ids,
            "target_mask": torch.ones_like(ids),
        }

    held: list[set[int]] = []
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        with record_function("construction"):
            engine = build_engine(job, ranks, construct(job, 0), accumulation)
        engine.train()
        for _ in range(STEPS * accumulation):
            with record_function("between"):
                held.append(addresses())
            with record_function("forward"):
                losses = engine(batch())
            with record_function("backward"):
                engine.backward(losses["loss"])
            del losses
            with record_function("between"):
                held.append(addresses())
            with record_function("update"):
                engine.step()
    tree = profiled.profiler.kineto_results.experimental_event_tree()  # type: ignore[union-attr]
    found = peaks(tree, held)
    found.pop("between", None)
    return found


def addresses() -> set[int]:
    """Where the memory of all tensors lies that Python can reach."""
    import gc

    import torch

    found = set()
    gc.collect()
    for each in gc.get_objects():
        if isinstance(each, torch.Tensor) and each.device.type == "cpu":
            found.add(each.untyped_storage().data_ptr())
            if each.is_leaf and each.grad is not None:
                found.add(each.grad.untyped_storage().data_ptr())
    return found


def peaks(tree: Any, held: list[set[int]]) -> dict[str, float]:
    """Kind of moment -> the greatest sum of blocks that were allocated since the profile began and are not freed.

    The profile sees no block freed by another thread, as gloo's does with what it reduced. Between the passes nothing
    is alive but tensors that Python can reach, `held` each time, so other large blocks have been freed by then.
    """
    blocks, moments = [], []
    for event in walk(tree):
        if "Allocation" in type(event.extra_fields).__name__:
            blocks.append((event.start_time_ns, event.extra_fields.ptr, event.extra_fields.alloc_size))
        elif event.name in ("construction", "between", "forward", "backward", "update"):
            moments.append((event.start_time_ns, event.name))
    blocks.sort(key=lambda block: block[0])
    moments.sort()
    found: dict[str, float] = {}
    live: dict[int, int] = {}
    total, moment = 0, 0
    for time, address, size in blocks:
        while moment + 1 < len(moments) and moments[moment + 1][0] <= time:
            moment += 1
            if moments[moment][1] in ("forward", "update"):
                reachable = held.pop(0)
                for known in [known for known, bytes_ in live.items() if bytes_ > 100_000 and known not in reachable]:
                    total -= live.pop(known)
        if size > 0:
            live[address] = size
            total += size
        else:
            total -= live.pop(address, 0)  # blocks older than the profile are not counted
        name = moments[moment][1]
        found[name] = max(found.get(name, 0), total)
    return found


def walk(tree: Any) -> Iterator[Any]:
    """All events of a profile's tree."""
    stack = list(tree)
    while stack:
        event = stack.pop()
        stack.extend(event.children)
        yield event


if __name__ == "__main__":
    file, own_rank = Path(sys.argv[1]), int(sys.argv[2])
    given = json.loads(file.read_text())
    os.environ.update(
        RANK=sys.argv[2],
        LOCAL_RANK=sys.argv[2],
        WORLD_SIZE=str(given["ranks"]),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(given["port"]),
        DS_ACCELERATOR="cpu",
    )
    result = main(given, own_rank)
    file.with_suffix(f".{own_rank}").write_text(json.dumps(result))
    os._exit(0)  # gloo's threads would be waited for
