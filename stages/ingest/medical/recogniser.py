"""Name recognisers that are models: a spaCy pipeline or a Hugging Face token classifier in a folder of the user's own.

They come beside the rules and the lexicon and are not shipped. Nothing is downloaded, no code of the folder is run, and
no message quotes a text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import regex

from stages.base.contract import UserError
from stages.ingest.medical.lexicon import is_known
from stages.ingest.medical.names import NameRecogniser, Span, called_after, merged, words_of

_WORD_CHARACTER = regex.compile(r"[\p{L}\p{M}\d'’-]")
#: Tokens that two windows of a long text share.
_OVERLAP = 64


class Unlisted:
    """The names of a recogniser without those that are words of the project's lists or eponyms ("Foley catheter")."""

    def __init__(self, recogniser: NameRecogniser, keep: frozenset[str]) -> None:
        """`keep`: further words, in lower case."""
        self._recogniser = recogniser
        self._keep = keep

    def spans(self, text: str) -> list[Span]:
        """(start, end) of every name with a word that no list has, placeholders apart."""
        words = words_of(text)
        return [
            (start, end)
            for start, end in self._recogniser.spans(text)
            if not called_after(text, start, end)
            and any(word.start < end and word.end > start and not is_known(word.bare, self._keep) for word in words)
        ]


def check_folder(folder: Path, key: str) -> None:
    """Raises UserError, naming config key `key`, unless `folder` has a model of a kind whose package is installed."""
    from importlib.util import find_spec

    if _is_spacy(folder):
        if find_spec("spacy") is None:
            raise UserError(
                f"{key}: this is a spaCy pipeline and spaCy is not installed; pip install 'pairmill[names]'"
            )
    elif not (folder / "config.json").is_file():
        raise UserError(
            f"{key}: neither a spaCy pipeline (meta.json, config.cfg) nor a Hugging Face model (config.json) is there;"
            " name the folder that holds one"
        )


def load_recogniser(folder: Path, labels: Sequence[str], threshold: float, key: str) -> NameRecogniser:
    """The model in a folder, loaded once in a process.

    `labels`: the model's labels of people; at least one must be the model's. `threshold`: least probability of a
    token to be a name's, in [0, 1]; spaCy's pipelines decide themselves. Raises UserError naming config key `key`.
    """
    check_folder(folder, key)
    return _loaded(folder.resolve(), tuple(label.upper() for label in labels), threshold, key)


def _is_spacy(folder: Path) -> bool:
    return (folder / "meta.json").is_file() and (folder / "config.cfg").is_file()


@cache
def _loaded(folder: Path, labels: tuple[str, ...], threshold: float, key: str) -> NameRecogniser:
    if _is_spacy(folder):
        return SpacyRecogniser(folder, labels, key)
    return TokenClassifier(folder, labels, threshold, key)


def _checked_labels(wanted: Sequence[str], own: Iterable[str], key: str) -> set[str]:
    """Those of `own` that are wanted."""
    names = set(own)
    chosen = {label for label in names if label.upper() in wanted}
    if not chosen:
        raise UserError(
            f"{key}: the model has none of the labels {', '.join(wanted)}; it has {', '.join(sorted(names)) or 'none'}:"
            f" set {key}_labels to those of people"
        )
    return chosen


class SpacyRecogniser:
    """The entities of a spaCy pipeline, whichever of its components finds them."""

    def __init__(self, folder: Path, labels: Sequence[str], key: str) -> None:
        import spacy

        self._key = key
        try:
            self._pipeline: Any = spacy.load(folder)
        except (OSError, ValueError, ImportError, KeyError) as error:
            raise UserError(
                f"{key}: spaCy {spacy.__version__} cannot load the pipeline ({type(error).__name__}); take one that was"
                " made for this version"
            ) from None
        own = {label for name in self._pipeline.pipe_names for label in self._pipeline.pipe_labels.get(name, ())}
        self._labels = _checked_labels(labels, own, key)

    def spans(self, text: str) -> list[Span]:
        """(start, end) of every entity of a person."""
        try:
            entities = self._pipeline(text).ents
        except (ValueError, RuntimeError, IndexError) as error:
            raise UserError(_failed(self._key, error)) from None
        return [(entity.start_char, entity.end_char) for entity in entities if entity.label_ in self._labels]


class TokenClassifier:
    """A transformer that labels tokens (`AutoModelForTokenClassification`), with or without B- and I- prefixes."""

    def __init__(self, folder: Path, labels: Sequence[str], threshold: float, key: str) -> None:
        from transformers import AutoModelForTokenClassification, AutoTokenizer

        self._key = key
        self._threshold = threshold
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
            self._model: Any = AutoModelForTokenClassification.from_pretrained(str(folder), local_files_only=True)
        except (OSError, ValueError, ImportError, KeyError, RuntimeError) as error:
            raise UserError(
                f"{key}: transformers cannot load the model ({type(error).__name__}); the folder needs config.json, the"
                " weights and the tokenizer of a token classifier"
            ) from None
        if not self._tokenizer.is_fast:
            raise UserError(f"{key}: the model's tokenizer has no offsets; save it with its tokenizer.json")
        self._model.eval()
        own = {
            int(number): regex.sub(r"^[BILESU]-", "", str(label))
            for number, label in self._model.config.id2label.items()
        }
        chosen = _checked_labels(labels, own.values(), key)
        self._ids = [number for number, label in own.items() if label in chosen]
        positions = getattr(self._model.config, "max_position_embeddings", None) or 512
        # RoBERTa's tables have two positions that no token takes.
        padding = (self._model.config.pad_token_id or 0) + 1 if "roberta" in self._model.config.model_type else 0
        self._window = min(self._tokenizer.model_max_length, positions - padding, 512)

    def spans(self, text: str) -> list[Span]:
        """(start, end) of the words with a token that is a person's with at least the threshold's probability."""
        import torch

        encoded = self._tokenizer(
            text,
            truncation=True,
            max_length=self._window,
            stride=min(_OVERLAP, self._window // 4),
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        names = []
        for number, offsets in enumerate(encoded["offset_mapping"]):
            inputs = {
                name: torch.tensor([encoded[name][number]])
                for name in ("input_ids", "attention_mask", "token_type_ids")
                if name in encoded
            }
            try:
                with torch.inference_mode():
                    probabilities = self._model(**inputs).logits[0].float().softmax(-1)[:, self._ids].sum(-1)
            except (RuntimeError, IndexError, ValueError) as error:
                raise UserError(_failed(self._key, error)) from None
            names += [
                _whole_words(text, start, end)
                for (start, end), probability in zip(offsets, probabilities.tolist(), strict=True)
                if end > start and probability >= self._threshold
            ]
        return merged(names)


def _failed(key: str, error: Exception) -> str:
    return f"{key}: the model failed on a report ({type(error).__name__}); it may not fit the installed version"


def _whole_words(text: str, start: int, end: int) -> Span:
    """A token's span, grown to the words it is part of; without white space around it."""
    while start < end and text[start].isspace():
        start += 1
    while start > 0 and _WORD_CHARACTER.match(text[start - 1]):
        start -= 1
    while end < len(text) and _WORD_CHARACTER.match(text[end]):
        end += 1
    return start, end
