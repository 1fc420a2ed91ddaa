"""Penn Treebank tokenization of captions, as the caption benchmarks do it."""
