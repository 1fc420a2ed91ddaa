"""Answers to open-ended questions, scored by VQA accuracy overall and by type."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from stages.evaluate.metrics.additive import labels, mean_by_group
from stages.evaluate.metrics.vqa.accuracy import MODES, Mode, accuracies
from stages.evaluate.scorers.scored import Scored
from stages.formats.problems import Id
from stages.formats.vqa import Annotations

#: What is added to the names of each mode's scores.
_SUFFIX: dict[Mode, str] = {"official": "", "normalized": "_normalized"}


def score_vqa(annotations: Annotations, answers: Mapping[Id, str], modes: Collection[Mode] = MODES) -> Scored:
    """VQA accuracy in percent of the answers (question -> answer), every one of which has an annotation.

    Scores are `accuracy` (mode `official`) and `accuracy_normalized`, each also by `per_answer_type` and
    `per_question_type`. The samples' accuracies are in [0, 1], in the order of the answers.
    """
    modes = [mode for mode in MODES if mode in modes]
    annotated = [annotations.by_question[question] for question in answers]
    accuracy = accuracies(list(answers.values()), [annotation.answers for annotation in annotated], modes)
    answer_types = labels([annotation.answer_type for annotation in annotated])
    question_types = labels([annotation.question_type for annotation in annotated])
    metrics = []
    for mode in modes:
        groups = {
            f"per_answer_type{_SUFFIX[mode]}": answer_types,
            f"per_question_type{_SUFFIX[mode]}": question_types,
        }
        metrics.append(mean_by_group(f"accuracy{_SUFFIX[mode]}", accuracy[mode], groups, scale=100))
    return Scored(
        metrics=metrics,
        # Questions about one image are not independent; where the file names no image, each question stands alone.
        units=[f"q{a.question_id}" if a.image_id is None else a.image_id for a in annotated],
        per_sample={f"accuracy{_SUFFIX[mode]}": accuracy[mode].tolist() for mode in modes},
        protocol={"metric": "VQA accuracy, mean over leave-one-out subsets of min(1, matches/3), in percent"},
    )
