"""Byte-level BPE tokenizers, trained on the captions that were kept."""
