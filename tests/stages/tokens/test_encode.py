"""A shard's ids are those of encoding caption by caption, and every caption that changes is reported."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from stages.tokenizer.load import LoadedTokenizer
from stages.tokenizer.special import SpecialIds
from stages.tokens.encode import encode


def byte_level(missing: str = "") -> LoadedTokenizer:
    """Bytes and a merge; text with a letter in `missing` loses it."""
    letters = ["<pad>", "<s>", "</s>", *(c for c in sorted(pre_tokenizers.ByteLevel.alphabet()) if c not in missing)]
    made = Tokenizer(models.BPE({t: i for i, t in enumerate([*letters, "at"])}, [("a", "t")]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<pad>", "<s>", "</s>"])
    return LoadedTokenizer(made)


def words() -> LoadedTokenizer:
    made = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1, "cat": 2, "a": 3}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return LoadedTokenizer(made, SpecialIds(1, 1, 1), unknown_id=0)


CAPTIONS = st.lists(
    st.one_of(
        st.text("at zé 赤\u3000\n", max_size=12), st.sampled_from(["a cat", "</s>", "", " a", "a ", "a  cat", "z"])
    )
)


@pytest.mark.parametrize("tokenizer", [byte_level(), byte_level(missing="z"), words()], ids=["whole", "lossy", "words"])
@given(captions=CAPTIONS)
@settings(max_examples=50, deadline=None)
def test_ids_and_losses_are_those_of_each_caption_alone(tokenizer: LoadedTokenizer, captions: list[str]) -> None:
    encoded = encode(tokenizer, captions)
    rows = [tokenizer.encode(caption) for caption in captions]
    assert encoded.ids.dtype == np.uint16
    assert encoded.ids.tolist() == [i for row in rows for i in row]
    assert encoded.lengths.tolist() == [len(row) for row in rows]
    pairs = zip(captions, rows, strict=True)
    assert encoded.changed.tolist() == [tokenizer.decode(row) != caption for caption, row in pairs]
    expected = [row.count(tokenizer.unknown_id) if tokenizer.unknown_id is not None else 0 for row in rows]
    assert encoded.unknown(tokenizer.unknown_id).tolist() == expected
