"""The demonstration's world: built from installed packages alone, the same bytes every time.

Four lists of image-text pairs in their public formats (with planted faults), de-identifiable scans, questions and
captions to be scored on, a text corpus, and `expected.json`, the expected outcome of everything planted.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from stages.world.config import WorldConfig
from stages.world.demo import corpus, faults, hosts, photographs, scans, shapes, vqa
from stages.world.demo.listing import DemoLists
from stages.world.plugin import WorldBuilder

#: Share of the shapes in each list, and captions per image there.
SHARES = {"laion": (0.30, 2), "cc3m": (0.25, 2), "cc12m": (0.25, 2), "coco": (0.20, 3)}
REFERENCES = 5
"""Reference captions per test image, where as many can be worded."""


class DemoWorld(WorldBuilder):
    """`kind: demo`."""

    def build(self, out: Path, config: WorldConfig) -> dict[str, int]:
        """Write the world; see `docs/formats.md` for its files. Raises UserError when a package is missing."""
        train = shapes.questions("train", config.train_images)
        test = shapes.questions("test", config.test_images)
        shapes.copy_images("train", config.train_images, out / "images" / "train")
        shapes.copy_images("test", config.test_images, out / "images" / "test")
        vqa.write_vqa("train", train, out / "vqa")
        vqa.write_vqa("test", test, out / "vqa")
        vqa.write_captions(_facts(test, config.test_images), REFERENCES, config.seed, out / "captions")

        listing = DemoLists()
        homes = self._list_shapes(listing, _facts(train, config.train_images), config.seed)
        sizes = photographs.write_listed(out / "www" / "photos")
        for name, (_, host, captions) in photographs.LISTED.items():
            for caption in captions:
                listing.add(host, hosts.url(host, f"/photos/{name}.jpg"), caption, sizes[name])
        faults.plant(listing, out / "www", sizes, homes)
        files = scans.write_scans(out / "dicom", listing)
        listing.write(out / "lists", random.Random(f"{config.seed} lists"))
        sentences = corpus.write_corpus(config.corpus_captions, out / "text" / "coco_captions_2014.txt")

        (out / "www" / "routes.json").write_text(json.dumps(listing.routes, indent=1), encoding="utf-8")
        (out / "expected.json").write_text(json.dumps(listing.expected, indent=1), encoding="utf-8")
        return {
            "train_images": config.train_images,
            "test_images": config.test_images,
            "train_questions": len(train),
            "test_questions": len(test),
            "listed_pairs": sum(map(len, listing.rows.values())),
            "planted": len(listing.expected),
            "dicom_files": files,
            "corpus_captions": sentences,
        }

    @contextmanager
    def serve(self, root: Path) -> Iterator[dict[str, str]]:
        """Play all hosts of the lists."""
        with hosts.served(root) as served:
            yield served

    def _list_shapes(self, listing: DemoLists, known: dict[int, shapes.Facts], seed: int) -> dict[str, list[int]]:
        """Put every training image into one list; returns the image ids by host."""
        homes: dict[str, list[int]] = {host: [] for host in SHARES}
        order = sorted(known)
        random.Random(f"{seed} shares").shuffle(order)
        start = 0.0
        for host, (share, captions) in SHARES.items():
            end = start + share * len(order)
            homes[host] = sorted(order[round(start) : round(end)])
            start = end
            for image_id in homes[host]:
                address = hosts.url(host, f"/shapes/{image_id}.png")
                for caption in shapes.captions(known[image_id], captions, random.Random(f"{seed} train {image_id}")):
                    listing.add(host, address, caption)
        return homes


def _facts(questions: Sequence[shapes.ShapeQuestion], images: int) -> dict[int, shapes.Facts]:
    by_image: dict[int, list[shapes.ShapeQuestion]] = defaultdict(list)
    for question in questions:
        by_image[question.image_id].append(question)
    return {image_id: shapes.facts(by_image[image_id]) for image_id in range(images)}
