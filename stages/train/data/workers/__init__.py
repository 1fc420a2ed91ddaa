"""Processes that read, decode and augment samples, and hand them over in shared memory."""
