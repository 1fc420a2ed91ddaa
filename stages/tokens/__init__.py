"""Token ids of all captions, aligned with the training shards."""
