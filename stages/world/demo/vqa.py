"""Questions in VQAv2's official format, and reference captions in COCO's."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.world.demo.shapes import Facts, ShapeQuestion, Split, captions

#: Question ids of the two splits must not collide: people join files by them.
_FIRST_ID = {"train": 0, "test": 1_000_000}
_ANSWERS = 10  # annotators per question in VQAv2


def write_vqa(split: Split, questions: Sequence[ShapeQuestion], out: Path) -> None:
    """Write `<split>_questions.json` and `<split>_annotations.json`; all ten annotators give easy-vqa's answer."""
    info = {"description": "easy-vqa 1.0 in the format of VQA v2.0", "version": "1.0"}
    shared = {"info": info, "data_type": "easy_vqa", "data_subtype": split, "license": {"name": "MIT"}}
    listed: list[dict[str, Any]] = []
    annotated: list[dict[str, Any]] = []
    for number, question in enumerate(questions):
        ids = {"image_id": question.image_id, "question_id": _FIRST_ID[split] + number}
        listed.append({**ids, "question": question.text})
        annotated.append(
            {
                **ids,
                "question_type": " ".join(question.text.split()[:2]),
                "answer_type": "yes/no" if question.answer in ("yes", "no") else "other",
                "multiple_choice_answer": question.answer,
                "answers": [
                    {"answer_id": annotator, "answer": question.answer, "answer_confidence": "yes"}
                    for annotator in range(1, _ANSWERS + 1)
                ],
            }
        )
    out.mkdir(parents=True, exist_ok=True)
    for name, content in (
        ("questions", {**shared, "task_type": "Open-Ended", "questions": listed}),
        ("annotations", {**shared, "annotations": annotated}),
    ):
        (out / f"{split}_{name}.json").write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")


def write_captions(known: Mapping[int, Facts], references: int, seed: int, out: Path) -> None:
    """Write `test.json`: some reference captions for every test image, in COCO's caption format."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, seen in sorted(known.items()):
        images.append({"id": image_id, "file_name": f"{image_id}.png", "width": 64, "height": 64})
        for caption in captions(seen, references, random.Random(f"{seed} test {image_id}")):
            annotations.append({"id": len(annotations), "image_id": image_id, "caption": caption})
    content = {"info": {"description": "easy-vqa 1.0, captions derived from its questions"}}
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**content, "licenses": [], "images": images, "annotations": annotations})
    (out / "test.json").write_text(text, encoding="utf-8")
