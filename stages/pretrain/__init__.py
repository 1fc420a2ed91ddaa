"""Pretraining: a model from shards and tokens."""
