"""The signals stage: measures every fetched image and its captions once, and drops nothing."""
