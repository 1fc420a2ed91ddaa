"""Measures every fetched image and its captions once; drops nothing."""
