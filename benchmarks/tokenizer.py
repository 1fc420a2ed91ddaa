"""Training a tokenizer and encoding captions, against Hugging Face's `tokenizers` doing the same.

Training: our stage (words counted in processes that are already running, as Ray's workers are; merges learnt once)
against `Tokenizer.train_from_iterator` with all threads, each from the same text file, reading included. Merges and
vocabulary are asserted equal. Encoding: the way of the tokens stage, a shard of captions per task and nothing
remembered from one shard to the next, against `encode_batch` and `encode_batch_fast` with all threads. All ids are
asserted equal. The text is COCO 2014's captions, or a file given by `--text`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer as HuggingFace
from tokenizers import models, pre_tokenizers, trainers

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from benchmarks.common import compare, seconds  # noqa: E402
from stages.base.artifact import Artifact  # noqa: E402
from stages.base.contract import Partition, StageContext  # noqa: E402
from stages.tokenizer.config import TokenizerConfig  # noqa: E402
from stages.tokenizer.counting import sum_counts  # noqa: E402
from stages.tokenizer.load import load  # noqa: E402
from stages.tokenizer.pieces import PieceEncoder, texts_array  # noqa: E402
from stages.tokenizer.stage import Tokenizer  # noqa: E402
from stages.tokenizer.train import learn, write  # noqa: E402
from stages.world.demo.corpus import write_corpus  # noqa: E402

_SHARDS: dict[tuple[str, int], list[list[str]]] = {}


def lines(file: Path) -> Iterator[str]:
    """The texts of a file as training takes them."""
    with open(file, encoding="utf-8", newline="\n") as text:
        yield from (line.strip() for line in text)


def plain(config: TokenizerConfig, file: Path) -> dict[str, Any]:
    """Hugging Face alone; the model as parsed JSON."""
    tokenizer = HuggingFace(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocabulary,
        special_tokens=config.added_tokens(),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    rest = lines(file)
    tokenizer.train_from_iterator(iter(lambda: list(islice(rest, 1000)), []), trainer)
    model: dict[str, Any] = json.loads(tokenizer.to_str())["model"]
    return model


def count(stage: Tokenizer, partition: Partition, parts: str) -> None:
    """One task of our stage."""
    context = StageContext({"pairs": (), "verdicts": (Artifact(""),)}, Path(parts), Path(parts), parts)
    stage.run(partition, context)


def ours(stage: Tokenizer, pool: ProcessPoolExecutor) -> str:
    """Counting in the pool, merges here; contents of `tokenizer.json`."""
    plan = stage.partitions({"pairs": (), "verdicts": (Artifact(""),)})
    with tempfile.TemporaryDirectory() as parts:
        for done in [pool.submit(count, stage, partition, parts) for partition in plan]:
            done.result()
        return learn(stage.config, sum_counts(Path(parts).glob("words-*.parquet")))


def shards(file: str, size: int) -> list[list[str]]:
    """The captions, `size` at a time; kept, so that encoding is timed without reading."""
    if (file, size) not in _SHARDS:
        rest = lines(Path(file))
        _SHARDS[file, size] = list(iter(lambda: list(islice(rest, size)), []))
    return _SHARDS[file, size]


def encode(folder: str, file: str, size: int, worker: int, workers: int) -> int:
    """Our ids of every shard that falls to a worker, none remembered for the next; returns how many."""
    tokenizer = load(folder)
    mine = shards(file, size)[worker::workers]
    return sum(len(PieceEncoder(tokenizer).encode(texts_array(shard))[0]) for shard in mine)


def check_ids(folder: str, file: str, size: int) -> int:
    """All ids, ours and theirs; returns their number. Raises RuntimeError where they differ."""
    tokenizer, theirs = load(folder), HuggingFace.from_file(f"{folder}/tokenizer.json")
    theirs.encode_special_tokens = True
    result = 0
    for number, shard in enumerate(shards(file, size)):
        ids, offsets = PieceEncoder(tokenizer).encode(texts_array(shard))
        expected = [encoding.ids for encoding in theirs.encode_batch(shard, add_special_tokens=False)]
        lengths = np.fromiter(map(len, expected), np.int64)
        if not np.array_equal(np.diff(offsets), lengths) or not np.array_equal(ids, np.concatenate(expected)):
            raise RuntimeError(f"ids differ in shard {number}")
        result += len(ids)
    return result


def their_encoding(theirs: HuggingFace, name: str, file: str, size: int) -> Callable[[], None]:
    """Encoding all shards by a method of Hugging Face's tokenizer, ids taken out as lists."""
    method = getattr(theirs, name)

    def run() -> None:
        for shard in shards(file, size):
            _ = [encoding.ids for encoding in method(shard, add_special_tokens=False)]

    return run


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=616_767, help="captions of COCO 2014 (at most 616,767)")
    parser.add_argument("--text", type=Path, help="a UTF-8 text file to use instead, one text per line")
    parser.add_argument("--vocabulary", type=int, default=50_000)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--shard", type=int, default=10_000, help="captions encoded at a time")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        file = options.text or Path(scratch, "captions.txt")
        if options.text is None:
            write_corpus(options.captions, file)
        size = file.stat().st_size
        # In as many pieces as processes: a file this small would otherwise not be cut evenly.
        config = TokenizerConfig(
            vocabulary=options.vocabulary,
            allow_smaller=True,
            text=[{"path": str(file)}],
            bytes_per_partition=min(16_000_000, -(-size // options.processes)),
        )
        stage = Tokenizer(config)
        with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
            content = ours(stage, pool)
            made, expected = json.loads(content)["model"], plain(config, file)
            if made["merges"] != expected["merges"] or made["vocab"] != expected["vocab"]:
                raise RuntimeError("merges or vocabulary differ from plain train_from_iterator")
            inputs = {
                "text": options.text.name if options.text else f"COCO 2014, {options.captions:,} captions",
                "bytes": size,
                "vocabulary": len(made["vocab"]),
                "processes": options.processes,
                "identical merges and vocabulary": True,
            }
            trained = compare(
                "tokenizer training",
                lambda: seconds(lambda: ours(stage, pool)),
                {"tokenizers.train_from_iterator": lambda: seconds(lambda: plain(config, file))},
                options.rounds,
                inputs=inputs,
                finish=False,
            )
            folder = str(Path(scratch, "tokenizer"))
            Path(folder).mkdir()
            write(config, content, Path(folder))
            inputs = {**inputs, "tokens": check_ids(folder, str(file), options.shard), "identical ids": True}
            theirs = HuggingFace.from_file(f"{folder}/tokenizer.json")
            theirs.encode_special_tokens = True

            def in_pool() -> None:
                workers = options.processes
                tasks = [pool.submit(encode, folder, str(file), options.shard, w, workers) for w in range(workers)]
                if sum(task.result() for task in tasks) != inputs["tokens"]:
                    raise RuntimeError("ids are missing")

            def rate(work: Callable[[], None]) -> Callable[[], float]:
                return lambda: size / 1e6 / seconds(work)

            encoded = compare(
                "tokenizer encoding",
                rate(in_pool),
                {
                    f"tokenizers.{name}": rate(their_encoding(theirs, name, str(file), options.shard))
                    for name in ("encode_batch", "encode_batch_fast")
                },
                options.rounds,
                unit="MB/s",
                better="higher",
                inputs=inputs,
                warmup=True,
                finish=False,
            )
    result = {"training_s": trained, "encoding_mb_s": encoded}
    merged = {key: {name: part[key] for name, part in result.items()} for key in ("ours", "peers", "ratios", "inputs")}
    print(json.dumps({"name": "tokenizer", **merged, "machine": trained["machine"]}))


if __name__ == "__main__":
    main()
