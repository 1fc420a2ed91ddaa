"""Benchmarks: what is asked about which image, and how the answers are scored."""
