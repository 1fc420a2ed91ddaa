"""What the driver checks before it hands a job to workers."""

from __future__ import annotations

import pytest

from stages.base.contract import UserError
from stages.train.job import check_vocabulary


def test_a_tokenizer_larger_than_the_model_is_refused_with_both_keys() -> None:
    check_vocabulary(100, 100)
    check_vocabulary(128, 100)
    with pytest.raises(UserError, match=r"tokenizer.vocabulary=101 .* model.vocabulary=100"):
        check_vocabulary(100, 101)
