"""Turning a source's own lists of pairs into one table of pairs, the same for every source."""
