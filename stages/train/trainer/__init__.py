"""The trainer half: the loop every rank runs, its hooks, and what they keep on disk."""
