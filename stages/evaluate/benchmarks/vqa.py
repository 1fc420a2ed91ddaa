"""VQAv2's format: questions, ten answers each, and the answer a blind guess would give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stages.contract import UserError
from stages.evaluate.benchmarks.base import Benchmark, Result
from stages.evaluate.benchmarks.example import Example, Id, read_records, required
from stages.evaluate.config import VqaBenchmark
from stages.evaluate.metrics import vqa


class VqaFiles(Benchmark):
    """Open-ended questions about images."""

    @property
    def _files(self) -> VqaBenchmark:
        assert isinstance(self.config.benchmark, VqaBenchmark)
        return self.config.benchmark

    def examples(self) -> list[Example]:
        """One per question."""
        file = self.locate(self._files.questions)
        return [
            Example(
                id=required(record, "question_id", file, row),
                image_id=required(record, "image_id", file, row),
                file_name=str(record.get("file_name", "")),
                question=str(required(record, "question", file, row)),
            )
            for row, record in enumerate(read_records(file, "questions"))
        ]

    def score(self, examples: Sequence[Example], written: Mapping[Id, str]) -> Result:
        """Accuracy in both modes, by answer and question type, beside the majority answer's."""
        annotations = self._annotations(examples)
        official = vqa.score(written, annotations, "official")
        normalized = vqa.score(written, annotations, "normalized")
        training = self._files.train_annotations
        majority = vqa.majority_answer(read_records(self.locate(training), "annotations") if training else annotations)
        guessed = vqa.score({example.id: majority for example in examples}, annotations, "official")
        return Result(
            predictions=[{"question_id": example.id, "answer": written[example.id]} for example in examples],
            scores={
                "accuracy": official.accuracy,
                "accuracy_normalized": normalized.accuracy,
                "majority_accuracy": guessed.accuracy,
                "majority_answer": {
                    "answer": majority,
                    "accuracy": guessed.accuracy,
                    "taken_from": "training split" if training else "the scored split itself",
                },
                "per_answer_type": official.per_answer_type,
                "per_question_type": official.per_question_type,
            },
            protocol={"metric": "VQA accuracy, mean over leave-one-out subsets of min(1, matches/3), in percent"},
            per_sample={
                "question_id": [str(example.id) for example in examples],
                "image_id": [str(example.image_id) for example in examples],
                "question": [example.question for example in examples],
                "prediction": [written[example.id] for example in examples],
                "answers": [[str(a["answer"]) for a in record["answers"]] for record in annotations],
                "answer_type": [str(record.get("answer_type", "other")) for record in annotations],
                "question_type": [str(record.get("question_type", "other")) for record in annotations],
                "accuracy": official.per_question,
                "accuracy_normalized": normalized.per_question,
            },
        )

    def _annotations(self, examples: Sequence[Example]) -> list[Mapping[str, Any]]:
        """One annotation per example, in the examples' order."""
        file = self.locate(self._files.annotations)
        by_question: dict[Id, Mapping[str, Any]] = {}
        for row, record in enumerate(read_records(file, "annotations")):
            by_question[required(record, "question_id", file, row)] = record
            if not required(record, "answers", file, row):
                raise UserError(f"{file}: record {row} has no answers; a question needs at least one")
        for example in examples:
            if example.id not in by_question:
                raise UserError(f"{file}: question {example.id} has no annotation; do the two files belong together?")
        return [by_question[example.id] for example in examples]
