"""`score vqa`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.commands.score.task import Scored, Task, described
from stages.evaluate.formats.problems import Id, Problems
from stages.evaluate.formats.vqa import read_annotations, read_answers, read_questions
from stages.evaluate.metrics.additive import labels, mean_by_group
from stages.evaluate.metrics.vqa.accuracy import MODES, accuracies

#: What the JSON object calls each mode's scores.
KEYS = {"official": "accuracy", "normalized": "normalized"}
_TYPES = {"perAnswerType": "answer_type", "perQuestionType": "question_type"}
_MEANT = {
    "official": "VQA accuracy as the official code: answers are normalised only where the annotators differ",
    "normalized": "VQA accuracy with all answers normalised, also where the annotators agree",
}


class Vqa(Task):
    """Answers to open-ended questions in the official formats."""

    def __init__(self, arguments: argparse.Namespace, problems: Problems) -> None:
        super().__init__(arguments, problems)
        self.modes = [mode for mode in MODES if arguments.mode in (None, mode)]
        self.annotations = read_annotations(arguments.annotations, problems)
        self.questions = read_questions(arguments.questions, problems, self.annotations) if arguments.questions else {}

    def read(self, file: Path) -> dict[Id, Any]:
        """Question -> answer."""
        return dict(read_answers(file, self.annotations, self.problems))

    def score(self, results: Sequence[tuple[Path, dict[Id, Any]]]) -> list[Scored]:
        """In percent, overall and by answer and question type."""
        ids = list(results[0][1])
        asked = [self.annotations.questions[i] for i in ids]
        kinds = {name: labels([getattr(annotation, key) for annotation in asked]) for name, key in _TYPES.items()}
        # Questions about one picture are not independent; where a file names no picture, each question stands alone.
        units = [
            f"q{i}" if annotation.image_id is None else annotation.image_id
            for i, annotation in zip(ids, asked, strict=True)
        ]
        found = []
        for file, answers in results:
            given = [answers[i] for i in ids]
            accuracy = accuracies(given, [annotation.answers for annotation in asked], self.modes)
            samples: dict[str, list[Any]] = {
                "question_id": list(ids),
                "image_id": [annotation.image_id for annotation in asked],
                **({"question": [self.questions.get(i, {}).get("question") for i in ids]} if self.questions else {}),
                "answer": given,
                "answer_type": [annotation.answer_type for annotation in asked],
                "question_type": [annotation.question_type for annotation in asked],
                **{KEYS[mode]: (100 * accuracy[mode]).tolist() for mode in self.modes},
            }
            scores = [
                mean_by_group(
                    f"{KEYS[mode]}.overall",
                    100 * accuracy[mode],
                    {f"{KEYS[mode]}.{name}": of for name, of in kinds.items()},
                )
                for mode in self.modes
            ]
            protocol = {
                **described(annotations=self.arguments.annotations, questions=self.arguments.questions, results=file),
                "metric": "mean over leave-one-out subsets of the annotators of min(1, matches / 3), in percent",
                **{KEYS[mode]: _MEANT[mode] for mode in self.modes},
            }
            found.append(Scored(scores, units, "images", len(ids), samples, protocol))
        return found

    def report(self, scored: Scored) -> dict[str, Any]:
        """`accuracy` and `normalized`: `overall`, `perAnswerType`, `perQuestionType`."""
        found: dict[str, Any] = {}
        for name, value in scored.total().items():
            key, kind, *group = name.split(".", 2)
            of_mode = found.setdefault(key, {"overall": 0.0, **{name: {} for name in _TYPES}})
            if group:
                of_mode[kind][group[0]] = value
            else:
                of_mode[kind] = value
        return found
