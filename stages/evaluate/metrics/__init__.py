"""Metrics over plain lists of text: no model, no torch, no Ray."""
