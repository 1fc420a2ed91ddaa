"""The tokenizer stage's configuration: schema of `conf/tokenizer/*.yaml`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from stages.base.contract import NotFingerprinted, StageConfig
from stages.base.external_files import ExternalFile, ExternalFilesConfig, own_files, parse
from stages.tokenizer.special import tokenizer_files

#: The first ids of every tokenizer, in this order.
PAD, BOS, EOS = "<pad>", "<s>", "</s>"
#: Every byte has a token, so every text can be encoded.
BYTES = 256


class TextFile(ExternalFilesConfig):
    """A text file to train on besides the captions: UTF-8, one text per line."""

    path: Annotated[str, ExternalFile]
    """A local file. Its contents count, not its location."""

    @model_validator(mode="before")
    @classmethod
    def _from_its_path(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value


class ComparedTokenizer(StageConfig):
    """A third-party tokenizer, compared with ours."""

    folder: Annotated[str, NotFingerprinted]
    """A local folder with its `tokenizer.json`. Its contents count, not its location."""


class TokenizerConfig(StageConfig):
    """The root key `tokenizer`.

    Captions of private sources are left out unless `include_private` is set: a vocabulary quotes what it was trained
    on, a rare name becomes a token, and tokenizers are published with their models.
    """

    vocabulary: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Ids in all: special, task and location tokens, the 256 bytes, and merges. Of a brought tokenizer: how many ids it
    must come to, 0 for as many as it has."""
    folder: Annotated[str | None, ExternalFile] = None
    """A local folder with a tokenizer of your own to use instead of training one: `tokenizer.json`, or an older format
    that `transformers` converts. Its ids stay as they are; tokens named below that it lacks, and a pad token where it
    has none, get new ids behind them. Its contents count, not its location."""
    brought: bool = False
    """Filled in: whether there is a `folder`."""
    special_tokens: list[str] = []
    """Control tokens after `<pad>`, `<s>` and `</s>`. Text never encodes to one, and decoding leaves them out."""
    task_tokens: list[str] = []
    """Tokens that stand in a prompt or answer as written (`<caption>`); text that contains one encodes to it."""
    location_tokens: Literal[0, 1000] = 0
    """`<loc_0>` .. `<loc_999>`, the bins of one coordinate axis; encoded and decoded like task tokens."""
    text: list[TextFile] = []
    """Further text to train on; an entry may also be the path alone."""
    max_captions: Annotated[int, Field(ge=0)] | None = None
    """Most captions to train on: those with the smallest uid, which is a fixed random sample. Null takes all."""
    max_text_lines: Annotated[int, Field(ge=0)] | None = None
    """Most lines to train on of each text file, from its first. Null takes all."""
    include_private: bool = False
    """Also train on the captions of sources marked private."""
    allow_smaller: bool = False
    """Accept a smaller vocabulary where the text has too few distinct words; otherwise that is an error."""
    checked_captions: Annotated[int, Field(ge=0)] | None = None
    """Captions of each source (those with the smallest uid), and lines of each text file (its first), that the report
    measures and encodes forth and back. Null takes all."""
    compare: dict[str, ComparedTokenizer] = {}
    """Name -> a tokenizer to measure on the same texts, for the report alone. Part of what makes the artifact, so
    decide on it before models are trained on the tokenizer."""
    bytes_per_partition: Annotated[int, NotFingerprinted, Field(ge=1)] = 16_000_000
    """Most bytes of a text file that one task counts, but for the end of a line. Captions are counted by range of the
    index."""

    @model_validator(mode="before")
    @classmethod
    def _note_folder(cls, values: Any) -> Any:
        return {**values, "brought": bool(values.get("folder"))} if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _tokens_fit(self) -> TokenizerConfig:
        added = self.added_tokens()
        repeated = sorted({token for token in added if added.count(token) > 1})
        if repeated:
            raise ValueError(f"tokens named twice: {', '.join(repeated)}")
        if any(not token.strip() or token != token.strip() for token in added):
            raise ValueError("special_tokens and task_tokens must be visible text without spaces around it")
        if not self.brought and not self.vocabulary:
            raise ValueError("give vocabulary, the ids to train, or folder, where a tokenizer of your own lies")
        if not self.brought and self.vocabulary < len(added) + BYTES:
            raise ValueError(
                f"vocabulary={self.vocabulary} is too small: {len(added)} special, task and location tokens and the "
                f"{BYTES} bytes need {len(added) + BYTES}"
            )
        return self

    def control_tokens(self) -> list[str]:
        """Tokens that text never encodes to, in id order from 0."""
        return [PAD, BOS, EOS, *self.special_tokens]

    def added_tokens(self) -> list[str]:
        """All tokens that are not learnt, in id order from 0."""
        return [*self.control_tokens(), *self.task_tokens, *(f"<loc_{i}>" for i in range(self.location_tokens))]

    def external_files(self) -> list[str]:
        """Text files of one's own and the files of tokenizers that were brought, for the fingerprint."""
        texts = [path for text in self.text for path in own_files(text)]
        own = self.folder if self.folder and parse(self.folder) is None else None
        folders = [own, *(compared.folder for compared in self.compare.values())]
        return [*texts, *(file for folder in folders for file in tokenizer_files(folder))]
