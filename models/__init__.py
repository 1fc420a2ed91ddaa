"""Architectures and their losses: tensors in, tensors out; nothing here knows of files, Ray or MLflow."""
