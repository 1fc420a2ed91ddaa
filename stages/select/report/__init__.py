"""The data report: one self-contained page and its figures."""
