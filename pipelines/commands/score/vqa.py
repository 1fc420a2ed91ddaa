"""`score vqa`: answers to open-ended questions in the official formats."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.commands.score.base import ResultsScorer, add_report_options, described, identified
from pipelines.commands.score.report import score_file
from stages.evaluate.metrics.vqa.accuracy import Mode
from stages.evaluate.scorers.scored import Scored
from stages.evaluate.scorers.vqa import score_vqa
from stages.formats.json_file import TextResults
from stages.formats.problems import Id
from stages.formats.vqa import read_annotations, read_answers, read_questions

HELP = "VQA's official annotation and results JSON: accuracy as the official code computes it, and normalised"
_MEANING: dict[Mode, tuple[str, str]] = {
    "official": ("accuracy", "as the official code: answers are normalised only where the annotators differ"),
    "normalized": ("accuracy_normalized", "all answers are normalised, also where the annotators agree"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `score vqa`."""
    parser.add_argument("--annotations", type=Path, required=True, metavar="A.json", help="official annotations")
    parser.add_argument("--results", type=Path, required=True, metavar="R.json", help="[{question_id, answer}]")
    add_options(parser)
    add_report_options(parser)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options that `score compare` has as well."""
    parser.add_argument("--questions", type=Path, metavar="Q.json", help="official questions, checked and shown")
    parser.add_argument("--mode", choices=tuple(_MEANING), help="only this one (default: both)")


def run(arguments: argparse.Namespace) -> int:
    """Score one results file."""
    return score_file(VqaResultsScorer(arguments), arguments.results, arguments)


class VqaResultsScorer(ResultsScorer[TextResults]):
    """Scores answers on the annotations."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._modes: list[Mode] = [arguments.mode] if arguments.mode else list(_MEANING)
        self._annotations = read_annotations(arguments.annotations)
        self._questions = read_questions(arguments.questions) if arguments.questions else None
        self.problems = self._annotations.problems
        if self._questions is not None:
            annotated, listed = self._annotations.by_question, self._questions.by_id
            self.problems += self._questions.problems
            self.problems += self._questions.missing(annotated) + self._annotations.missing(listed)

    def read(self, file: Path) -> TextResults:
        """Question -> answer."""
        return read_answers(file, self._annotations)

    def score(self, results: Sequence[TextResults], ids: Sequence[Id]) -> list[Scored]:
        """In percent, overall and by answer and question type."""
        return [self._score(one, ids) for one in results]

    def _score(self, results: TextResults, ids: Sequence[Id]) -> Scored:
        answers = {question: results.texts[question] for question in ids}
        annotated = [self._annotations.by_question[question] for question in ids]
        columns: dict[str, list[Any]] = {
            "question_id": list(ids),
            "image_id": [annotation.image_id for annotation in annotated],
        }
        if self._questions is not None:
            listed = self._questions.by_id
            columns["question"] = [listed[question].text if question in listed else None for question in ids]
        columns["answer"] = list(answers.values())
        columns["answer_type"] = [annotation.answer_type for annotation in annotated]
        columns["question_type"] = [annotation.question_type for annotation in annotated]
        protocol = {
            **described(
                annotations=self._arguments.annotations, questions=self._arguments.questions, results=results.file
            ),
            **dict(_MEANING[mode] for mode in self._modes),
        }
        return identified(score_vqa(self._annotations, answers, self._modes), columns, protocol)
