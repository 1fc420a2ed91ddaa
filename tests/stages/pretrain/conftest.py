"""Training shards with their tokens, made by hand in the documented formats."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from stages.base.artifact import Artifact
from stages.base.pairs import image_uid, pair_uid
from stages.shard.index import to_table, write_index
from stages.shard.scan import scan_tar

COLORS = {"red": (220, 30, 30), "green": (30, 220, 30), "blue": (30, 30, 220), "white": (220, 220, 220)}
SHARDS, SAMPLES = 2, 12


def sealed(folder: Path, stage: str) -> Artifact:
    files = [{"name": p.name, "size": p.stat().st_size} for p in sorted(folder.iterdir())]
    mark = hashlib.sha256(stage.encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps({"fingerprint": mark, "files": files, "counts": {}}))
    return Artifact(str(folder))


def byte_tokenizer() -> Tokenizer:
    alphabet = ["<pad>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Artifact]]:
    """`shards` of coloured images whose captions name the colour, `tokens`, and a `tokenizer` of bytes alone."""
    root = tmp_path_factory.mktemp("pretrain-inputs")
    for name in ("shards", "tokens", "tokenizer"):
        (root / name).mkdir()
    tokenizer = byte_tokenizer()
    tokenizer.save(str(root / "tokenizer" / "tokenizer.json"))
    (root / "tokenizer" / "tokenizer_config.json").write_text("{}")
    draw = np.random.default_rng(0)
    listed: list[dict[str, Any]] = []
    tables = []
    for shard in range(SHARDS):
        name = f"train-{shard:05d}"
        ids: list[int] = []
        offsets = [0]
        with tarfile.open(root / "shards" / f"{name}.tar", "w") as tar:
            for i in range(SAMPLES):
                color = list(COLORS)[(shard + i) % 4]
                caption = f"a {color} square" if i % 2 else f"{color}"
                where = f"{shard}/{i}.png"
                pixels = np.clip(draw.normal(COLORS[color], 20, (20, 20, 3)), 0, 255).astype(np.uint8)
                image = io.BytesIO()
                Image.fromarray(pixels).save(image, "png")
                uid = pair_uid("s", where, caption)
                meta = json.dumps({"uid": uid, "image_uid": image_uid("s", where), "source": "s"}).encode()
                for extension, data in (("png", image.getvalue()), ("txt", caption.encode()), ("json", meta)):
                    member = tarfile.TarInfo(f"{uid}.{extension}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
                ids += tokenizer.encode(caption, add_special_tokens=False).ids
                offsets.append(len(ids))
        tables.append(to_table(scan_tar(root / "shards" / f"{name}.tar", shard)))
        listed.append({"name": f"{name}.tar", "samples": SAMPLES})
        np.save(root / "tokens" / f"{name}.ids.npy", np.array(ids, dtype=np.uint16))
        np.save(root / "tokens" / f"{name}.offsets.npy", np.array(offsets, dtype=np.int64))
    write_index(root / "shards" / "index.arrow", tables)
    (root / "shards" / "dataset.json").write_text(json.dumps({"samples": SHARDS * SAMPLES, "shards": listed}))
    stems = [shard["name"].removesuffix(".tar") for shard in listed]
    (root / "tokens" / "tokens.json").write_text(json.dumps({"vocabulary": 259, "shards": stems}))
    return {name: [sealed(root / name, name)] for name in ("shards", "tokens", "tokenizer")}
