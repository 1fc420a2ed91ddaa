"""Ranks of real trainings whose memory is measured: a program that starts the ranks of each training it is told of.

A line of its input is a training's settings in JSON; the line that it answers has the peaks of each rank. A rank builds
a phase's model and DeepSpeed engine as the trainer does, over gloo, and takes some steps. What is measured is the
greatest sum of blocks that were alive at once, as the C library counts them whatever thread allocates or frees them
(gloo's free much of what they gather) and whether or not they are touched: what `torch.cuda.max_memory_allocated` is on
a GPU. Ranks are forks of one process, since importing takes longer than training.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

STEPS = 2


def train(settings: dict[str, Any], rank: int) -> dict[str, float]:
    """Train; returns the highest that memory has been by each kind of moment, in bytes."""
    import deepspeed
    import torch

    from models import registry
    from stages.tokenizer.special import SpecialIds
    from stages.train.config import TrainConfig
    from stages.train.job import TrainingJob
    from stages.train.trainer.construction import construct, release
    from stages.train.trainer.deepspeed_engine import build_engine
    from stages.train.trainer.ranks import RankInfo

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    deepspeed.init_distributed("gloo")
    model = registry.model_config(settings["model"])
    config = TrainConfig.model_validate(settings["train"])
    ranks = RankInfo(rank, settings["ranks"], 1, torch.device("cpu"))
    source: Any = None  # batches are drawn below
    job = TrainingJob(
        key="train",
        settings=config,
        phases=tuple(config.phases),
        model=model,
        initial=None,
        source=source,
        tokenizer="",
        special=SpecialIds(pad=0, bos=1, eos=2),
        scratch=settings["scratch"],
        precision=settings["precision"],
        threads=1,
        tensor_parallel=1,
    )
    accumulation = config.global_batch // (config.micro_batch * settings["ranks"])
    generator = torch.Generator().manual_seed(rank)

    def batch() -> dict[str, Any]:
        images, size = config.micro_batch, model.vision.image_size
        ids = torch.randint(3, model.vocabulary, (images, config.max_text_tokens), generator=generator)
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

    # What the first product and the first collective of a process leave behind: MKL's buffers, gloo's connections.
    square = torch.ones(1024, 1024)
    torch.distributed.all_reduce(square @ square)
    del square
    if settings["precision"] == "bf16":
        # oneDNN, which multiplies in bf16, keeps a kernel of 258 kB for every shape that it has met.
        engine = build_engine(job, ranks, construct(job, 0), accumulation)
        engine.train()
        losses = engine(batch())
        engine.backward(losses["loss"])
        release(engine)
        del engine, losses
    before = mapped()
    found: dict[str, float] = {}

    def note(moment: str) -> None:
        found[moment] = highest() - before

    engine = build_engine(job, ranks, construct(job, 0), accumulation)
    note("construction")
    engine.train()
    for _ in range(STEPS * accumulation):
        losses = engine(batch())
        note("forward")
        engine.backward(losses["loss"])
        note("backward")
        del losses
        engine.step()
        note("update")
    return found


#: Blocks of at least so many bytes are mapped one by one, and counted by the C library as they come and go.
THRESHOLD = 65536


class _Heap(ctypes.Structure):
    """What glibc's `mallinfo2` returns."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    ]


def libc() -> Any:
    """The C library, told to map large blocks one by one."""
    library = ctypes.CDLL("libc.so.6")
    library.mallinfo2.restype = _Heap
    m_mmap_threshold, m_mmap_max = -3, -4  # malloc.h
    library.mallopt(m_mmap_threshold, THRESHOLD)
    library.mallopt(m_mmap_max, 1 << 20)
    return library


def mapped() -> int:
    """Bytes of large blocks now."""
    heap: _Heap = libc().mallinfo2()
    return int(heap.hblkhd)


def highest() -> int:
    """The greatest sum of large blocks that were alive at once since the process began.

    glibc counts it with every block, whatever thread allocates or frees it, and prints it.
    """
    with tempfile.TemporaryFile() as file:
        errors = os.dup(2)
        os.dup2(file.fileno(), 2)
        libc().malloc_stats()
        os.dup2(errors, 2)
        os.close(errors)
        file.seek(0)
        return int(file.read().decode().split("max mmap bytes")[1].split("=")[1].split()[0])


def rank_process(settings: dict[str, Any], rank: int, folder: Path) -> int:
    """Start a rank, which leaves its peaks, or else what went wrong, in a file of the folder; returns its process."""
    if process := os.fork():
        return process
    code = 1
    try:
        output = os.open(folder / f"output.{rank}", os.O_CREAT | os.O_WRONLY)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(settings["ranks"]))
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(settings["port"]))
        (folder / f"peaks.{rank}").write_text(json.dumps(train(settings, rank)))
        code = 0
    finally:
        if code:
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(code)  # gloo's threads would be waited for


def measure(settings: dict[str, Any]) -> dict[str, Any]:
    """The `peaks` of a training's ranks, or the `error` of one that failed."""
    folder = Path(settings["scratch"])
    processes = [rank_process(settings, rank, folder) for rank in range(settings["ranks"])]
    running = dict(enumerate(processes))
    failed = None
    until = time.monotonic() + settings["seconds"]
    while running and failed is None:
        for rank, process in list(running.items()):
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                del running[rank]
                failed = rank if status and failed is None else failed
        if time.monotonic() > until and running:
            failed = next(iter(running))
        time.sleep(0.05)
    for process in running.values():
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    if failed is not None:
        return {"error": (folder / f"output.{failed}").read_text()[-3000:]}
    return {"peaks": [json.loads((folder / f"peaks.{rank}").read_text()) for rank in range(settings["ranks"])]}


def main() -> None:
    """Serve trainings until the input ends."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    import torch

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    torch.set_num_threads(1)
    libc()
    from stages.train.trainer.ranks import _import_deepspeed

    _import_deepspeed()
    import stages.train.trainer.construction
    import stages.train.trainer.deepspeed_engine  # noqa: F401 - imported once for all ranks

    for line in sys.stdin:
        print(json.dumps(measure(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
