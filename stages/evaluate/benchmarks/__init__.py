"""Benchmarks: the examples of each kind, and how the generated texts are scored."""
