"""Architectures and their losses: tensors in, tensors out; files only to read and save weights; no Ray, no MLflow."""
