"""Training shards: WebDataset tars with an index for random access, and the reader that everyone else uses."""
