"""Readers of the field's public formats, annotations and results; used by training, the index and evaluation."""
