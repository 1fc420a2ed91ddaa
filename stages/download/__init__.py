"""PartitionDownload the listed images: raw shards, and one row for every attempt with its outcome."""
