"""Worlds: everything a demonstration reads, built from installed packages and served over loopback HTTP."""
