"""Scores a trained model on a benchmark under a stated protocol."""
