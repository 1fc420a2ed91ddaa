"""Penn Treebank tokenization of captions as the benchmarks do it: lower case, no punctuation."""

from __future__ import annotations

from stages.evaluate.metrics.ptb.by_rules import tokenize

__all__ = ["tokenize"]
