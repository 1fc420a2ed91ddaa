"""Image-text retrieval scored by recall at k."""

from __future__ import annotations

import numpy as np

from stages.evaluate.metrics.additive import Additive
from stages.evaluate.metrics.retrieval import ranks, recalls
from stages.evaluate.scorers.scored import Scored


def score_retrieval(scores: np.ndarray, text_to_image: np.ndarray, text_scores: np.ndarray | None = None) -> Scored:
    """Recall at 1, 5 and 10 in percent, both ways, of scores [images, texts]; see :func:`ranks`.

    `text_to_image` int64 [texts] is each text's row, -1 for a text without an image, which is left out. The rows of
    `per_sample` are queries: the images that have texts, then the texts that have an image. Raises ValueError on a
    wrong shape and on NaN.
    """
    texts = np.flatnonzero(text_to_image >= 0)
    if len(texts) < len(text_to_image):
        scores, text_scores = scores[:, texts], None if text_scores is None else text_scores[texts]
    owners = text_to_image[texts]
    found = ranks(scores, owners, text_scores)
    recall = recalls(found, owners)
    images = np.flatnonzero(found.of_texts >= 0)
    return Scored(
        metrics=[Additive(recall.names, recall.per_sample[images], recall.sums[images], recall.of_sums)],
        units=list(images.tolist()),
        per_sample={
            "query": ["image"] * len(images) + ["text"] * len(texts),
            "index": [*images.tolist(), *texts.tolist()],
            "rank": [*found.of_texts[images].tolist(), *found.of_images.tolist()],
        },
        protocol={
            "metric": "recall at k in percent: txt_r finds an image's texts, img_r a text's image",
            "ties": "of equal scores the one with the lower index comes first",
        },
    )
