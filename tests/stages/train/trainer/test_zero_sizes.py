"""Buckets of gradients are a part of a small model, and no larger than a network needs for a large one."""

from __future__ import annotations

from stages.train.trainer.zero_sizes import bucket_elements


def test_buckets_are_a_sixth_of_what_learns_within_bounds() -> None:
    assert bucket_elements(300e6) == 50_000_000
    # Every phase of both published models has more than 600 million weights that learn.
    assert bucket_elements(622e6) == bucket_elements(12e9) == 100_000_000
    assert bucket_elements(1e6) == bucket_elements(90e6) == 1 << 24
