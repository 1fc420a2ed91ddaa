"""Private images with their reports: read from local files, de-identified on the way in."""
