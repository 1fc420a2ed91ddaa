"""VQA accuracy (Antol et al. 2015), exact against the official evaluation, quirks included."""
