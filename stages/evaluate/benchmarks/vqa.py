"""VQAv2's format: questions, ten answers each, and the answer a blind guess would give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stages.evaluate.benchmarks.base import Benchmark, Result
from stages.evaluate.benchmarks.example import Example
from stages.evaluate.config import VqaBenchmark
from stages.evaluate.formats.problems import Id, Problems
from stages.evaluate.formats.vqa import Annotation, read_annotations, read_questions
from stages.evaluate.metrics.additive import labels, mean_by_group
from stages.evaluate.metrics.vqa.accuracy import accuracies, majority_answer


class VqaFiles(Benchmark):
    """Open-ended questions about images."""

    @property
    def _files(self) -> VqaBenchmark:
        assert isinstance(self.config.benchmark, VqaBenchmark)
        return self.config.benchmark

    def examples(self) -> list[Example]:
        """One per question."""
        problems = Problems()
        questions = read_questions(self.locate(self._files.questions), problems)
        problems.settle()
        return [
            Example(question, record["image_id"], str(record.get("file_name", "")), record["question"])
            for question, record in questions.items()
        ]

    def check(self) -> None:
        """Every question needs an annotation."""
        self._annotations(self.examples())
        if self._files.train_annotations:
            self._read(self._files.train_annotations)

    def score(self, examples: Sequence[Example], written: Mapping[Id, str]) -> Result:
        """Accuracy in both modes, by answer and question type, beside the majority answer's."""
        annotations = self._annotations(examples)
        answers = [annotation.answers for annotation in annotations]
        each = accuracies([written[example.id] for example in examples], answers)
        training = self._files.train_annotations
        majority = majority_answer(self._read(training) if training else annotations)
        guessed = accuracies([majority] * len(examples), answers, ("official",))["official"]
        accuracy = _percent(each["official"])
        return Result(
            predictions=[{"question_id": example.id, "answer": written[example.id]} for example in examples],
            scores={
                "accuracy": accuracy,
                "accuracy_normalized": _percent(each["normalized"]),
                "majority_accuracy": _percent(guessed),
                "majority_answer": {
                    "answer": majority,
                    "accuracy": _percent(guessed),
                    "taken_from": "training split" if training else "the scored split itself",
                },
                "per_answer_type": _by(each["official"], [annotation.answer_type for annotation in annotations]),
                "per_question_type": _by(each["official"], [annotation.question_type for annotation in annotations]),
            },
            protocol={"metric": "VQA accuracy, mean over leave-one-out subsets of min(1, matches/3), in percent"},
            per_sample={
                "question_id": [str(example.id) for example in examples],
                "image_id": [str(example.image_id) for example in examples],
                "question": [example.question for example in examples],
                "prediction": [written[example.id] for example in examples],
                "answers": answers,
                "answer_type": [annotation.answer_type for annotation in annotations],
                "question_type": [annotation.question_type for annotation in annotations],
                "accuracy": each["official"].tolist(),
                "accuracy_normalized": each["normalized"].tolist(),
            },
        )

    def _read(self, name: str) -> list[Annotation]:
        problems = Problems()
        found = read_annotations(self.locate(name), problems)
        problems.settle()
        return list(found.questions.values())

    def _annotations(self, examples: Sequence[Example]) -> list[Annotation]:
        """One annotation per example, in the examples' order."""
        problems = Problems()
        found = read_annotations(self.locate(self._files.annotations), problems)
        missing = [example.id for example in examples if example.id not in found.questions]
        problems.add_all("missing", found.file, "annotation of question", missing)
        problems.settle()
        return [found.questions[example.id] for example in examples]


def _percent(values: np.ndarray) -> float:
    return float(100 * values.mean())


def _by(values: np.ndarray, of_questions: list[str]) -> dict[str, float]:
    of = labels(of_questions)
    found = mean_by_group("all", 100 * values, {"type": of}).total()
    return {label: found[f"type.{label}"] for label in of.names}
