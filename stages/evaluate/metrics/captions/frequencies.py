"""Document frequencies of a collection's n-grams, in a file for sets that are too small to have their own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stages.base.contract import UserError
from stages.evaluate.metrics.captions.cider import document_frequencies
from stages.evaluate.metrics.captions.ngrams import Counted, count

if TYPE_CHECKING:
    import pyarrow as pa

_KEY = b"pairmill.document_frequencies"


@dataclass(frozen=True)
class Frequencies:
    """In how many images' references each n-gram stands."""

    images: int
    """Images of the collection."""
    ngrams: pa.Array
    """string: n-grams of 1 to 4 tokens, joined by single spaces."""
    counts: np.ndarray
    """int64 [n-grams]."""

    def of(self, counted: Counted) -> list[np.ndarray]:
        """For each n, the frequencies of counted n-grams, float64; 0 for one that the collection lacks."""
        import pyarrow as pa
        import pyarrow.compute as pc

        frequencies = []
        for order in range(len(counted.orders)):
            texts = counted.text(order, np.arange(len(counted.orders[order].position)))
            place = pc.index_in(pa.array(texts, pa.string()), value_set=self.ngrams).fill_null(-1).to_numpy()
            known = self.counts[place] if len(self.counts) else np.zeros(len(place), dtype=np.int64)
            frequencies.append(np.where(place >= 0, known, 0).astype(np.float64))
        return frequencies


def frequencies_of(references: Sequence[Sequence[str]]) -> Frequencies:
    """Of tokenised references, one or more per image."""
    import pyarrow as pa

    counted = count([""] * len(references), references)
    texts: list[str] = []
    counts: list[np.ndarray] = []
    for order, frequency in enumerate(document_frequencies(counted)):
        held = np.flatnonzero(frequency)
        texts += counted.text(order, held)
        counts.append(frequency[held].astype(np.int64))
    return Frequencies(len(references), pa.array(texts, pa.string()), np.concatenate(counts))


def write_frequencies(frequencies: Frequencies, file: Path) -> None:
    """Write a parquet file: columns `ngram` and `images`, the number of images in its metadata, sorted by n-gram.

    Raises UserError when it cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"ngram": frequencies.ngrams, "images": pa.array(frequencies.counts, pa.int32())}).sort_by("ngram")
    table = table.replace_schema_metadata({_KEY: json.dumps({"images": frequencies.images})})
    try:
        pq.write_table(table, file, compression="zstd")
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({error}); name another place") from None


def read_frequencies(file: Path) -> Frequencies:
    """Read what :func:`write_frequencies` wrote. Raises UserError for anything else."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file)
        images = int(json.loads((table.schema.metadata or {})[_KEY])["images"])
        ngrams = table["ngram"].cast(pa.string()).combine_chunks()
        counts = table["images"].to_numpy().astype(np.int64)
    except FileNotFoundError:
        raise UserError(f"{file}: no such file; make it with --write-document-frequencies") from None
    except (KeyError, ValueError, TypeError, OverflowError, OSError, pa.ArrowException):
        raise UserError(
            f"{file}: not a file of document frequencies; make one with --write-document-frequencies"
        ) from None
    if images < 1 or len(counts) == 0 or int(counts.max()) > images or int(counts.min()) < 1:
        raise UserError(f"{file}: its frequencies do not fit its {images:,} images; make it again")
    return Frequencies(images, ngrams, counts)
