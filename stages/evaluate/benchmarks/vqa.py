"""VQAv2's format: questions, ten answers each, and the answer that a blind guess would give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stages.evaluate.benchmarks.base import Benchmark, Example, Result
from stages.evaluate.config import VqaBenchmark
from stages.evaluate.metrics.vqa.accuracy import majority_answer
from stages.evaluate.scorers.vqa import score_vqa
from stages.formats.problems import Id
from stages.formats.vqa import Annotations, read_annotations, read_questions


class VqaFiles(Benchmark):
    """An answer is generated for every question."""

    @property
    def _files(self) -> VqaBenchmark:
        assert isinstance(self.config.benchmark, VqaBenchmark)
        return self.config.benchmark

    def examples(self) -> list[Example]:
        """One per question."""
        questions = read_questions(self.locate(self._files.questions))
        questions.problems.raise_if_any()
        return [
            Example(question.question_id, question.image_id, question.file_name, question.text)
            for question in questions.records
            if question.image_id is not None  # the reader required it
        ]

    def check(self) -> None:
        """Every question needs an annotation."""
        self._annotations([example.id for example in self.examples()])
        if self._files.train_annotations:
            self._read(self._files.train_annotations)

    def score(self, examples: Sequence[Example], generated: Mapping[Id, str]) -> Result:
        """Accuracy in both modes, by answer and question type, beside the majority answer's."""
        answers = {example.id: generated[example.id] for example in examples}
        annotations = self._annotations(list(answers))
        annotated = [annotations.by_question[question] for question in answers]
        scored = score_vqa(annotations, answers)
        training = self._files.train_annotations
        majority = majority_answer(self._read(training).records if training else annotated)
        guessed = score_vqa(annotations, dict.fromkeys(answers, majority), ["official"]).figures()["accuracy"]
        figures = scored.figures()
        return Result(
            predictions=[{"question_id": question, "answer": answer} for question, answer in answers.items()],
            scores={
                "accuracy": figures["accuracy"],
                "accuracy_normalized": figures["accuracy_normalized"],
                "majority_accuracy": guessed,
                "majority_answer": {
                    "answer": majority,
                    "accuracy": guessed,
                    "taken_from": "training split" if training else "the scored split itself",
                },
                "per_answer_type": figures["per_answer_type"],
                "per_question_type": figures["per_question_type"],
            },
            protocol=scored.protocol,
            per_sample={
                "question_id": [str(example.id) for example in examples],
                "image_id": [str(example.image_id) for example in examples],
                "question": [example.question for example in examples],
                "prediction": list(answers.values()),
                "answers": [annotation.answers for annotation in annotated],
                "answer_type": [annotation.answer_type for annotation in annotated],
                "question_type": [annotation.question_type for annotation in annotated],
                **scored.per_sample,
            },
        )

    def _read(self, name: str) -> Annotations:
        annotations = read_annotations(self.locate(name))
        annotations.problems.raise_if_any()
        return annotations

    def _annotations(self, questions: Sequence[Id]) -> Annotations:
        """The annotations, one of each question at least. Raises UserError."""
        annotations = read_annotations(self.locate(self._files.annotations))
        (annotations.problems + annotations.missing(questions)).raise_if_any()
        return annotations
