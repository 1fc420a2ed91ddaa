"""The command line of `pairmill score`. Imported by every command: nothing heavy here."""

from __future__ import annotations

import argparse
from pathlib import Path

WHAT = {
    "captions": "COCO annotation and results JSON: BLEU, METEOR, ROUGE-L, CIDEr-D, SPICE, CLIPScore",
    "nocaps": "the same for NoCaps: in-, near- and out-domain and overall, document frequencies over the whole set",
    "vqa": "VQA's official annotation and results JSON: accuracy as the official code computes it, and normalised",
    "retrieval": "a matrix of image-text scores: recall at 1, 5 and 10 both ways",
    "refexp": "boxes of referring expressions: accuracy at IoU 0.5",
    "compare": "two results on the same references: difference, interval and p-value by paired bootstrap",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands and their options."""
    kinds = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    made = {name: kinds.add_parser(name, help=text, description=text) for name, text in WHAT.items()}
    for name in ("captions", "nocaps"):
        command = made[name]
        command.add_argument(
            "--references", type=Path, required=True, metavar="REFS.json", help="COCO or Karpathy JSON"
        )
        command.add_argument("--candidates", type=Path, metavar="CANDS.json", help="[{image_id, caption}]")
        command.add_argument(
            "--write-document-frequencies",
            type=Path,
            metavar="FILE.parquet",
            help="write the references' document frequencies, with or without scoring candidates",
        )
        _caption_options(command)
    made["vqa"].add_argument("--annotations", type=Path, required=True, metavar="A.json", help="official annotations")
    made["vqa"].add_argument("--results", type=Path, required=True, metavar="R.json", help="[{question_id, answer}]")
    _vqa_options(made["vqa"])
    made["retrieval"].add_argument("--scores", type=Path, required=True, metavar="S.npy", help="[images, texts]")
    made["retrieval"].add_argument(
        "--text-scores", type=Path, metavar="T.npy", help="[texts, images], where that direction was scored apart"
    )
    made["retrieval"].add_argument(
        "--text-to-image", type=Path, required=True, metavar="MAP.json", help="each text's row: a list or an object"
    )
    made["refexp"].add_argument(
        "--annotations", type=Path, required=True, metavar="A.json", help="boxes xywh in pixels"
    )
    made["refexp"].add_argument(
        "--results", type=Path, required=True, metavar="R.json", help="[{id, bbox: [x, y, w, h]}]"
    )
    _refexp_options(made["refexp"])
    _compare_options(made["compare"])
    for name, command in made.items():
        command.add_argument("--json", action="store_true", help="one JSON object on standard output")
        command.add_argument(
            "--allow-missing", action="store_true", help="score what is there although entries are missing or broken"
        )
        if name != "compare":
            command.add_argument("--confidence", action="store_true", help="95%% bootstrap intervals of every score")
            command.add_argument(
                "--per-sample", type=Path, metavar="FILE", help="each sample's scores, as .jsonl or .parquet"
            )
        command.add_argument("--resamples", type=_positive, default=1000, help="of the bootstrap (default: 1000)")
        command.add_argument("--seed", type=_not_negative, default=0, help="of the bootstrap (default: 0)")


def _caption_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--metrics", metavar="LIST", help="e.g. CIDEr,Bleu_4,METEOR (default: all that can be computed here)"
    )
    command.add_argument(
        "--document-frequencies", type=Path, metavar="FILE.parquet", help="CIDEr's, of a larger collection"
    )
    command.add_argument("--karpathy-split", default="test", metavar="SPLIT", help="of a Karpathy JSON (default: test)")
    command.add_argument("--workers", type=_positive, default=1, help="processes for METEOR (default: 1)")
    command.add_argument(
        "--meteor-jar",
        action="store_true",
        help="ask METEOR's own jar instead of our exact implementation (needs Java)",
    )
    command.add_argument("--clip-model", type=Path, metavar="FOLDER", help="a CLIP model, for CLIPScore")
    command.add_argument("--images", type=Path, metavar="FOLDER", help="the images, for CLIPScore")
    command.add_argument(
        "--image-pattern",
        metavar="PATTERN",
        default="{file_name}",
        help="file name below --images, e.g. {image_id:012d}.jpg (default: {file_name})",
    )


def _vqa_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--questions", type=Path, metavar="Q.json", help="official questions, checked and shown")
    command.add_argument("--mode", choices=("official", "normalized"), help="only this one (default: both)")


def _refexp_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--coordinates",
        choices=("pixels", "normalized", "thousandths"),
        help="of the results (default: what the file declares, else pixels)",
    )


def _compare_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--references", type=Path, metavar="REFS.json", help="with --candidates: captions")
    command.add_argument("--candidates", type=Path, nargs=2, metavar=("FIRST", "SECOND"))
    command.add_argument("--annotations", type=Path, metavar="A.json", help="with --results: VQA, or boxes")
    command.add_argument("--results", type=Path, nargs=2, metavar=("FIRST", "SECOND"))
    command.add_argument("--text-to-image", type=Path, metavar="MAP.json", help="with --scores: retrieval")
    command.add_argument("--scores", type=Path, nargs=2, metavar=("FIRST", "SECOND"))
    _caption_options(command)
    _vqa_options(command)
    _refexp_options(command)


def _positive(text: str) -> int:
    return _at_least(1, text)


def _not_negative(text: str) -> int:
    return _at_least(0, text)


def _at_least(least: int, text: str) -> int:
    if not (text.isdecimal() and len(text) < 20 and int(text) >= least):
        raise argparse.ArgumentTypeError(f"{text} is no whole number of at least {least}")
    return int(text)
