"""All phrases of the paraphrase list as one tree of words, in flat arrays: 2.6 million phrases in some 50 MB."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

#: Lines of the list: probability, phrase, paraphrase.
_PERIOD = 3
_BLOCK = 1 << 24


def build_trie(listed: pa.Buffer | bytes) -> tuple[list[bytes], dict[str, np.ndarray]]:
    """The vocabulary in byte order, and the arrays of the tree. Raises ValueError for a list it cannot read.

    Nodes are numbered level by level, those of one level by (parent, word), so children are contiguous and sorted:

    - ``first_child`` uint32 [nodes + 2]: children of node n are first_child[n + 1] .. first_child[n + 2]; those of the
      root, which has no number, are 0 .. first_child[1]
    - ``word`` uint32 [nodes]: the word on the edge to a node, as its place in the vocabulary
    - ``first_paraphrase`` uint32 [nodes + 1], ``paraphrase`` uint32 [pairs]: the nodes of the paraphrases of the phrase
      that ends at a node, in the list's order
    """
    left, right = _columns(listed)
    left_codes, left_phrases = _encoded(left)
    right_codes, right_phrases = _encoded(right)
    vocabulary, words, starts = _words(pa.concat_arrays([left_phrases, right_phrases]))
    node_of, word, first_child = _levels(words, starts, len(vocabulary))
    source = node_of[left_codes]
    target = node_of[len(left_phrases) + right_codes]
    order = np.argsort(source, kind="stable")
    counts = np.bincount(source, minlength=len(word))
    first = np.concatenate([[0], np.cumsum(counts)])
    return vocabulary, {
        "first_child": first_child.astype(np.uint32),
        "word": word.astype(np.uint32),
        "first_paraphrase": first.astype(np.uint32),
        "paraphrase": target[order].astype(np.uint32),
    }


def _columns(listed: pa.Buffer | bytes) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    reader = pa_csv.open_csv(
        pa.BufferReader(listed),
        read_options=pa_csv.ReadOptions(column_names=["line"], block_size=_BLOCK),
        parse_options=pa_csv.ParseOptions(
            delimiter="\x01", quote_char=False, escape_char=False, ignore_empty_lines=False
        ),
        convert_options=pa_csv.ConvertOptions(column_types={"line": pa.string()}, strings_can_be_null=False),
    )
    columns: tuple[list[pa.Array], list[pa.Array]] = ([], [])
    seen = 0
    for batch in reader:
        lines = batch.column(0)
        for at, column in enumerate(columns, start=1):
            rows = np.arange((at - seen) % _PERIOD, len(lines), _PERIOD)
            column.append(lines.take(pa.array(rows)).dictionary_encode())
        seen += len(lines)
    left, right = (pa.chunked_array(column) for column in columns)
    if len(left) != len(right) or seen % _PERIOD:
        raise ValueError("the list of paraphrases ends in the middle of an entry")
    return left, right


def _encoded(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    whole = column.unify_dictionaries().combine_chunks()
    whole = whole.combine_chunks() if isinstance(whole, pa.ChunkedArray) else whole
    return whole.indices.to_numpy(zero_copy_only=False), whole.dictionary


def _words(phrases: pa.Array) -> tuple[list[bytes], np.ndarray, np.ndarray]:
    """Vocabulary, words of all phrases as places in it, and where each phrase starts among them [phrases + 1]."""
    split = pc.split_pattern(phrases, " ")
    coded = split.flatten().dictionary_encode()
    vocabulary = [text.encode() for text in coded.dictionary.to_pylist()]
    if any(not text or any(c in text for c in b"\t\f\r") for text in vocabulary):
        raise ValueError("the list of paraphrases holds an empty phrase or odd spaces")
    order = sorted(range(len(vocabulary)), key=vocabulary.__getitem__)
    place = np.empty(len(vocabulary), np.int64)
    place[order] = np.arange(len(vocabulary))
    return [vocabulary[i] for i in order], place[coded.indices.to_numpy()], split.offsets.to_numpy()


def _levels(words: np.ndarray, starts: np.ndarray, vocabulary: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Node at which each phrase ends [phrases], word of each node [nodes], first_child [nodes + 2]."""
    lengths = np.diff(starts)
    ends = np.zeros(len(lengths), np.int64)
    parent = np.zeros(len(lengths), np.int64)  # place of the phrase's node within its level
    above, total = 1, 0  # the level above the first is the root alone
    edge_words: list[np.ndarray] = []
    firsts: list[np.ndarray] = []
    for depth in range(int(lengths.max(initial=0))):
        here = np.flatnonzero(lengths > depth)
        keys, node = np.unique(parent[here] * vocabulary + words[starts[here] + depth], return_inverse=True)
        firsts.append(total + np.searchsorted(keys, np.arange(above) * vocabulary))
        edge_words.append(keys % vocabulary)
        parent[here] = node
        ends[here] = total + node
        above, total = len(keys), total + len(keys)
    # The last level has no children.
    firsts.append(np.full(above + 1, total))
    return ends, np.concatenate([*edge_words, np.empty(0, np.int64)]), np.concatenate(firsts)
