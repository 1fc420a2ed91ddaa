"""The data half of training: from shards and annotation files to the batches a model takes."""
