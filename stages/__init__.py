"""The steps of the pipeline; at this root, the contract they share."""
