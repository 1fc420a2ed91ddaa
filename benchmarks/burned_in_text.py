"""How much text on radiographs the medical source's `burned_in_text: mask` fills, and how much else it fills.

Input: `--images`, a folder of real radiographs (JPEG, PNG), of which `--count` are drawn by a fixed seed. On each, one
invented identifier is printed per size (8 to 40 pixels high) and ink (white, black, grey), at a place drawn by the same
seed. It counts as filled when 90% of its visible ink is: ink at least 25 grey levels off what was there. Contrast is
the median difference; from 80 grey levels on it is called high, from 40 on medium. What is filled on the images as they
are is reported as boxes and as a share of the image; whether that is text (side markers are) takes an eye: `--sheet
FILE.png` draws them.

The peer is the package that the networks come from, used as it is (`RapidOCR()`: detector, then reader, boxes of what
was read), on one thread as ours, on the same images in turns; the boxes of both grow by the same margin.

The last line is one JSON object: name, ours, peers, ratios.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

import numpy as np  # noqa: E402
from common import report  # noqa: E402
from PIL import Image, ImageDraw, ImageFont  # noqa: E402

from stages.imaging.text_boxes import Box, covered  # noqa: E402
from stages.ingest.medical.burned_in import BurnedInTextDetector  # noqa: E402

_WORDS = ("FONTAINE, M", "Okonkwo C", "MRN 0048213", "12/03/1956", "St. Brigid", "Acc 55-1028")
_SIZES = (8, 12, 16, 24, 32, 40)
_INKS = (255, 0, 160)
#: `text_margin` of the source.
_MARGIN = 0.3
#: Grey levels from which ink can be told from what is under it.
_VISIBLE = 25

Boxes = Callable[[Image.Image], list[Box]]


def planted(picture: Image.Image, size: int, ink: int, draw: random.Random) -> tuple[Image.Image, np.ndarray, str]:
    """The picture with a word on it, where its ink is [height, width], and how well it stands out."""
    font = ImageFont.load_default(size)
    word = draw.choice(_WORDS)
    _, _, width, height = font.getbbox(word)
    left = draw.randint(0, max(0, picture.width - int(width)))
    top = draw.randint(0, max(0, picture.height - int(height)))
    layer = Image.new("L", picture.size, 0)
    ImageDraw.Draw(layer).text((left, top), word, fill=255, font=font)
    shape = np.asarray(layer)
    grey = np.asarray(picture.convert("L"))
    mixed = Image.composite(Image.new("L", picture.size, ink), picture.convert("L"), layer)
    off = np.abs(grey.astype(int) - ink)
    contrast = float(np.median(off[shape > 128]))
    return mixed, (shape > 128) & (off >= _VISIBLE), "high" if contrast >= 80 else "medium" if contrast >= 40 else "low"


def peer() -> Boxes:
    """RapidOCR as it comes, on one thread."""
    from rapidocr_onnxruntime import RapidOCR

    engine = RapidOCR(intra_op_num_threads=1, inter_op_num_threads=1)

    def boxes(image: Image.Image) -> list[Box]:
        detections, _ = engine(np.asarray(image.convert("RGB"))[:, :, ::-1], use_cls=False)
        corners = [np.asarray(corner) for corner, _, _ in detections or []]
        ends = [(c.min(axis=0).astype(int), c.max(axis=0).astype(int) + 1) for c in corners]
        return [Box(int(low[1]), int(low[0]), int(high[1]), int(high[0]), 1.0) for low, high in ends]

    return boxes


def measure(pictures: Sequence[Image.Image], who: dict[str, Boxes], seed: int) -> dict[str, dict[str, Any]]:
    """All figures by finder."""
    draw = random.Random(seed)
    hits: dict[str, dict[tuple[str, int], list[bool]]] = {name: defaultdict(list) for name in who}
    seconds: dict[str, list[float]] = {name: [] for name in who}
    clean: dict[str, list[tuple[int, float]]] = {name: [] for name in who}
    for number, picture in enumerate(pictures, 1):
        spent = dict.fromkeys(who, 0.0)
        for name, boxes in who.items():
            regions = boxes(picture)
            clean[name].append((len(regions), float(covered(regions, picture.size, _MARGIN).mean())))
        for size in _SIZES:
            for ink in _INKS:
                image, mask, contrast = planted(picture, size, ink, draw)
                if not mask.any():
                    continue
                for name, boxes in who.items():
                    start = time.perf_counter()
                    regions = boxes(image)
                    spent[name] += time.perf_counter() - start
                    filled = covered(regions, image.size, _MARGIN)[mask]
                    hits[name][contrast, size].append(bool(filled.mean() >= 0.9))
        for name in who:
            seconds[name].append(spent[name] / (len(_SIZES) * len(_INKS)))
        print(f"{number}/{len(pictures)}", file=sys.stderr, flush=True)
    return {
        name: {"recall": _recall(hits[name]), "clean": _clean(clean[name]), "seconds": seconds[name]} for name in who
    }


def _recall(hits: dict[tuple[str, int], list[bool]]) -> dict[str, dict[str, float]]:
    table: dict[str, dict[str, float]] = {}
    for contrast in ("high", "medium", "low"):
        of = {size: hits[contrast, size] for size in _SIZES if hits[contrast, size]}
        every = [hit for hits in of.values() for hit in hits]
        if every:
            table[contrast] = {str(size): round(statistics.mean(hits), 3) for size, hits in of.items()}
            table[contrast] |= {"all": round(statistics.mean(every), 3), "words": len(every)}
    return table


def _clean(boxes: list[tuple[int, float]]) -> dict[str, float]:
    shares = sorted(share for _, share in boxes)
    return {
        "images_with_boxes": round(statistics.mean(count > 0 for count, _ in boxes), 3),
        "boxes_per_image": round(statistics.mean(count for count, _ in boxes), 2),
        "mean_share_filled": round(statistics.mean(shares), 4),
        "share_filled_95th": round(shares[int(0.95 * (len(shares) - 1))], 4),
        "largest_share_filled": round(shares[-1], 4),
    }


def sheet(pictures: Sequence[Image.Image], boxes: Boxes, path: Path) -> None:
    """Draw what is found on the images as they are."""
    side, columns = 320, 6
    page = Image.new("RGB", (columns * side, -(-len(pictures) // columns) * side))
    for number, picture in enumerate(pictures):
        shown = picture.convert("RGB")
        pen = ImageDraw.Draw(shown)
        for box in boxes(picture):
            pen.rectangle((box.left, box.top, box.right, box.bottom), outline=(255, 0, 0), width=2)
        shown.thumbnail((side - 4, side - 4))
        page.paste(shown, (number % columns * side, number // columns * side))
    page.save(path)


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of radiographs")
    parser.add_argument("--count", type=int, default=40, help="images drawn (default: %(default)s)")
    parser.add_argument("--side", type=int, default=1536, help="`text_side` of the source (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-peer", action="store_true", help="ours alone")
    parser.add_argument("--sheet", type=Path, help="PNG with ours drawn on the images as they are")
    options = parser.parse_args()
    files = sorted(p for p in options.images.rglob("*") if p.suffix.lower() in (".png", ".jpg", ".jpeg"))
    chosen = random.Random(options.seed).sample(files, min(options.count, len(files)))
    pictures = [Image.open(file).convert("L") for file in chosen]
    who: dict[str, Boxes] = {"ours": BurnedInTextDetector(options.side).boxes}
    if not options.no_peer:
        who["rapidocr"] = peer()
    figures = measure(pictures, who, options.seed)
    for name, result in figures.items():
        print(name)
        for contrast, recall in result["recall"].items():
            print(f"  recall, contrast {contrast:7} {recall}")
        print(f"  images as they are  {result['clean']}")
    if options.sheet:
        sheet(pictures, who["ours"], options.sheet)
    seconds = {name: result.pop("seconds") for name, result in figures.items()}
    mine = seconds.pop("ours")
    report(
        "burned_in_text",
        mine,
        seconds,
        unit="s per image",
        inputs={"images": len(pictures), "words": len(pictures) * len(_SIZES) * len(_INKS), "text_side": options.side},
        found=figures,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
